"""The recipe script as a user starts it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(recipe_tree, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(recipe_tree))
    return file


def launch(config, *overrides, folder, options=()):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "-q", *options]
    command = [*launcher, str(ROOT / "recipes" / "two_tower.py"), str(config), *overrides]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.user_column=usr", "interactions.usr: no such column"),
        ("user_tower.backbone=/no/such/model", "user_tower.backbone: there is no folder '/no/such/model'"),
        (
            "text.item_template={titel}",
            "text.item_template: there is no field 'titel'; did you mean 'title'?",
        ),
        (
            "ranking.k=100 ranking.n_candidates=100",
            "ranking.k: lists have 100 places, and there are 40 items",
        ),
        ("train.epoch=2", "train.epoch: unknown key; did you mean 'epochs'?"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(config, tmp_path, override, message):
    result = launch(config, *override.split(), folder=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    left = {path.name for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert left <= {"tiny.yaml", "runs"}, left


def test_a_setting_that_the_adapter_lacks(config, tmp_path):
    result = launch(config, "item_tower.adapter=ia3", "item_tower.lora_rank=4", folder=tmp_path)
    assert result.returncode == 1
    assert "item_tower.lora_rank: adapter 'ia3' does not have this setting; leave it out" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_two_processes_write_one_bundle(config, tmp_path):
    options = shlex.split(
        "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
        " --main_process_port 0"
    )
    os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        result = launch(config, folder=tmp_path, options=options)
    finally:
        del os.environ["ACCELERATE_USE_CPU"]
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("ranking_head_diverse |") == 1
    assert (tmp_path / "runs" / "tiny" / "bundle.json").is_file()


def test_a_run_of_a_single_step_is_no_false_alarm(config, tmp_path):
    result = launch(config, "train.batch_size=1000", "train.epochs=1", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "ranking_head_diverse" in result.stdout


def test_a_catalogue_of_eight_items_goes_through(make_bundle, tmp_path):
    rng = np.random.default_rng(0)
    items = "".join(f"i{n},{' '.join(['war', 'love'][n // 2**k % 2] for k in range(3))}\n" for n in range(8))
    (tmp_path / "items.csv").write_text("item_id,title\n" + items)
    rows = [(u, i, t) for u in range(40) for t, i in enumerate(rng.permutation(8)[:5])]
    log = "".join(f"u{u},i{i},{1_600_000_000 + 1000 * u + t}\n" for u, i, t in rows)
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + log)
    data = {"interactions": str(tmp_path / "log.csv"), "items": str(tmp_path / "items.csv")}
    bundle = make_bundle("eight", data=data, ranking={"k": 3, "n_candidates": 8})
    assert (bundle / "head.safetensors").is_file()


def test_a_random_split_of_a_log_with_times_goes_through(make_bundle):
    bundle = make_bundle("random", data={"split": "random"})
    assert (bundle / "head.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "user", "item"),
    [
        ("swapped", {"backbone": "llama"}, {"backbone": "bert", "pooling": None}),
        ("others", {"backbone": "modernbert"}, {"backbone": "gpt_neox", "precision": "8bit"}),
        (
            "quantised",
            {"backbone": "deberta-v2", "precision": "4bit"},
            {"backbone": "gpt2", "precision": "4bit"},
        ),
        (
            "every-layer",
            {"backbone": "albert", "trained_layers": None},
            {"backbone": "opt", "trained_layers": None},
        ),
        ("started", {"lora_start": "eva"}, {"lora_start": "pissa", "lora_plus_ratio": 4.0}),
    ],
)
def test_a_run_with_other_backbones_and_precisions(make_bundle, backbone_folder, name, user, item):
    import lora_rec

    towers = [
        tower | ({"backbone": str(backbone_folder(tower["backbone"]))} if "backbone" in tower else {})
        for tower in (user, item)
    ]
    bundle = make_bundle(name, user_tower=towers[0], item_tower=towers[1])
    rec = lora_rec.load(bundle)
    assert len(rec.recommend(["i3", "i5"], k=5)) == 5
    bases = {"user_backbone": towers[0].get("backbone"), "item_backbone": towers[1].get("backbone")}
    if "backbone" in user:
        loaded = lora_rec.load_towers(bundle, **bases)
        texts = loaded.render_items(rec.item_fields)
        assert (loaded.encode_items(texts) * rec.item_vectors).sum(axis=1).min() > 0.98

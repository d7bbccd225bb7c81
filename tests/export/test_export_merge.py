"""Merged towers: plain models with the lists of the bundle, out of every precision."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import lora_rec
from lora_rec.cli import main
from lora_rec.errors import BundleError, TowerError
from lora_rec.pipeline.merge import merge_bundle
from lora_rec.towers.pooling import pool

TEXTS = ["war war1", "love love3", "love4 war9 war3"]
QUANTISED = {"precision": "4bit", "compute": "fp32"}


def bases(models):
    return {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny", {}),
        ("four-bit", QUANTISED),
        ("eight-bit", {"precision": "8bit", "compute": "fp32"}),
        ("half", {"precision": "bf16"}),
        ("four-bit-adalora", QUANTISED | {"adapter": "adalora", "init_rank": 6, "target_rank": 2}),
        ("oft", {"adapter": "oft", "oft_block_size": 8}),
        ("full", {"adapter": "full"}),
    ],
)
def test_a_merged_model_is_plain_and_gives_the_same_vectors(make_bundle, models, tmp_path, name, settings):
    overrides = {
        "user_tower": settings,
        "item_tower": settings,
        "train": {"epochs": 4, "learning_rate": 0.02},
    }
    bundle = make_bundle(name, **(overrides if settings else {}))
    reports = merge_bundle(
        bundle,
        tmp_path / "merged",
        **bases(models),
    )
    towers = lora_rec.load_towers(bundle, **bases(models))
    for report, tower_name in zip(reports, ("user_tower", "item_tower"), strict=True):
        folder = tmp_path / "merged" / tower_name
        model = AutoModel.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert "quantization_config" not in json.loads((folder / "config.json").read_text())
        assert all(p.dtype == torch.float32 for p in model.parameters())
        tower = getattr(towers.model, tower_name)
        batch = tokenizer(TEXTS, padding=True, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            states = pool(out.last_hidden_state, batch["attention_mask"], pooling=tower.pooling)
            merged = torch.nn.functional.normalize(tower.projection(states), dim=1).numpy()
        served = towers.encode_users(TEXTS) if tower_name == "user_tower" else towers.encode_items(TEXTS)
        rounded = name in ("eight-bit", "half")  # these are served in 8 or 16 bit, a merged model in 32
        np.testing.assert_allclose(merged, served, atol=0.2 if rounded else 1e-4)
        assert report.overlap >= 0.99
        assert report.cosine > 1 - 1e-5
        assert 0.5 < report.overlap_as_served <= 1
        assert rounded or report.overlap_as_served >= 0.99


def test_merging_into_the_original_base_of_4_bit_changes_lists_and_is_refused(make_bundle, models, tmp_path):
    overrides = {
        "user_tower": QUANTISED,
        "item_tower": QUANTISED,
        "train": {"epochs": 4, "learning_rate": 0.02},
    }
    bundle = make_bundle("four-bit", **overrides)
    text = (
        r"merge: .*_tower keeps 0\.\d+ of its top-10 lists, less than 0.99; nothing was written; use --force"
    )
    with pytest.raises(BundleError, match=text):
        merge_bundle(bundle, tmp_path / "merged", **bases(models), original_base=True)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])
    merge_bundle(bundle, tmp_path / "merged", **bases(models), original_base=True, force=True)
    assert (tmp_path / "merged" / "item_tower" / "model.safetensors").is_file()


def test_what_no_plain_model_can_hold(make_bundle, models, tmp_path):
    bundle = make_bundle(
        "prefixed", item_tower={"adapter": "prefix"}, train={"epochs": 4, "learning_rate": 0.05}
    )
    with pytest.raises(
        TowerError, match="item_tower: adapter 'prefix' cannot be merged, because keys and values"
    ):
        merge_bundle(bundle, tmp_path / "merged", **bases(models))


def test_the_command_prints_the_overlap(bundle, models, tmp_path, capsys):
    out = tmp_path / "merged"
    options = ["--user-backbone", str(models["bert"]), "--item-backbone", str(models["llama"])]
    assert main(["merge", str(bundle), str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "user_tower: 1.0000 of the top-10 lists stay" in printed
    assert f"wrote {out}/user_tower" in printed
    assert main(["merge", str(bundle), str(out), *options]) == 1
    assert "exists; name a folder that is not there yet" in capsys.readouterr().err

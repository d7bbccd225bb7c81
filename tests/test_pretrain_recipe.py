"""The script recipes/pretrain.py, and the two-tower recipe that goes on from what it wrote."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_tasks import TASKS, write_shop

from lora_rec.config import build_config
from lora_rec.errors import BundleError, RecipeError, TowerError
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.recipe import Recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def shop(tmp_path, models):
    return write_shop(tmp_path, models)


def script(name):
    return runpy.run_path(str(ROOT / "recipes" / f"{name}.py"))["run"]


def test_every_config_loads():
    files = sorted((ROOT / "recipes" / "configs").glob("pretrain-*.yaml"))
    assert files
    for file in files:
        assert PretrainRecipe.load(file).output


@pytest.mark.parametrize(
    ("cls", "other", "message"),
    [
        (Recipe, "pretrain-quickstart", r"  tower: unknown key; recipes/pretrain\.py reads it"),
        (PretrainRecipe, "quickstart", r"  item_tower: unknown key; recipes/two_tower\.py reads it"),
    ],
)
def test_a_recipe_of_the_other_kind_says_so(cls, other, message):
    with pytest.raises(RecipeError, match=message):
        cls.load(ROOT / "recipes" / "configs" / f"{other}.yaml")


def test_from_texts_to_a_bundle(shop, recipe_tree, capsys):
    """Phase one prints its table; phase two starts from its adapter, and says so in the bundle."""
    tasks = {name: TASKS[name] for name in ("mlm", "history_views")}
    script("pretrain")(build_config(PretrainRecipe, shop | {"tasks": tasks}))
    out = capsys.readouterr().out
    assert "| history_views | retrieval@1 |" in out
    adapter = Path(shop["output"])
    assert not adapter.with_name("out.checkpoints").exists()
    second = recipe_tree | {"output": str(adapter.with_name("bundle")), "data": shop["data"]}
    second["user_tower"] = {"backbone": shop["tower"]["backbone"], "start_from": str(adapter)}
    script("two_tower")(build_config(Recipe, second))
    manifest = json.loads((adapter.with_name("bundle") / "bundle.json").read_text())
    assert manifest["user_tower"]["adapter"] == "lora"  # kept even where no epoch was better
    # A second run replaces the first; what is no adapter of ours stays.
    script("pretrain")(build_config(PretrainRecipe, shop | {"tasks": {"category": {"field": "kind"}}}))
    assert set(json.loads((adapter / "pretrain.json").read_text())["tasks"]) == {"category"}
    (adapter / "pretrain.json").unlink()
    with pytest.raises(BundleError, match="exists and is no adapter of recipes/pretrain.py"):
        script("pretrain")(build_config(PretrainRecipe, shop | {"tasks": tasks}))


def test_a_refusal_leaves_nothing(shop, tmp_path):
    with pytest.raises(TowerError, match="tasks.clm"):
        script("pretrain")(build_config(PretrainRecipe, shop | {"tasks": {"clm": {}}}))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["train.epochs=1"], 0, "| category | accuracy |"),
        (["tasks.clm.weight=1"], 1, "pretrain: tasks.clm: "),
        (["tasks.category.feild=x"], 1, "tasks.category.feild: unknown key; did you mean 'field'?"),
    ],
)
def test_as_a_user_starts_it(shop, tmp_path, overrides, code, message):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(shop | {"tasks": {"category": {"field": "kind"}}}))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "-q"]
    command = [*launcher, str(ROOT / "recipes" / "pretrain.py"), str(config), *overrides]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert message in (result.stderr if code else result.stdout)
    assert "Traceback" not in result.stderr

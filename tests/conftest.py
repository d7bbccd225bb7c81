"""Tiny random models, their tokenizers, and a data set whose answer is obvious."""

import json
import os

# Before torch and transformers are imported. Tests never reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny tensors gain nothing from threads, and lose tenfold when something else runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from tiny_models import tiny_config, write_qwen_tokenizer, write_tokenizer
from tiny_names import ENCODERS, TITLES


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory):
    """Gives the folder of a tiny random model of any type, with its tokenizer, by the type's name."""
    import torch
    from transformers import AutoModel

    root = tmp_path_factory.mktemp("models")

    def make(name):
        folder = root / f"tiny-{name}"
        if not folder.exists():
            size = (
                write_qwen_tokenizer(folder)
                if name == "qwen2"
                else write_tokenizer(folder, encoder=name in ENCODERS)
            )
            torch.manual_seed(0)
            model = AutoModel.from_config(tiny_config(name, vocab_size=size))
            # Of default size, weights of width 32 hardly mix the tokens, and every text would look alike.
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.15)
            model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def models(backbone_folder):
    """Folders of a tiny BERT, Llama and GPT-2 with random weights, by name."""
    return {name: backbone_folder(name) for name in ("bert", "llama", "gpt2")}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    monkeypatch.setenv("LORA_REC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """CSV files of 60 users, each faithful to one of two clusters of 20 items."""
    folder = tmp_path_factory.mktemp("tables")
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        chosen = generator.permutation(20)[:9] + 20 * (user % 2)
        rows += [f"u{user},i{item},{1000 + 10 * place}" for place, item in enumerate(chosen)]
    (folder / "clicks.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    items = [f"i{n},{title}" for n, title in enumerate(TITLES)]
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(items) + "\n")
    return folder


@pytest.fixture(scope="session")
def recipe_tree(models, tables):
    """A recipe over the tiny models and tables, as nested mappings."""
    return {
        "output": "runs/tiny",
        "data": {"interactions": str(tables / "clicks.csv"), "items": str(tables / "items.csv")},
        "user_tower": {"backbone": str(models["bert"]), "trained_layers": 2},
        "item_tower": {"backbone": str(models["llama"]), "pooling": "last", "trained_layers": 1},
        "train": {"width": 8, "epochs": 1, "batch_size": 32, "extra_items": 8, "learning_rate": 0.01},
        "head": {"epochs": 1, "width": 8, "n_heads": 2, "history_length": 8},
        "ranking": {"n_candidates": 20},
    }


@pytest.fixture(scope="session")
def make_bundle(recipe_tree, tmp_path_factory):
    """Writes bundles with the recipe script: one for each name and its overrides, once for all tests."""
    import runpy
    from pathlib import Path

    from tiny import every_epoch_is_the_best

    from lora_rec.config import build_config
    from lora_rec.recipe import Recipe

    root = tmp_path_factory.mktemp("bundle")
    script = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "two_tower.py"))

    def make(name="tiny", **overrides):
        output = root / name
        if not output.exists():
            tree = recipe_tree | {"output": str(output)}
            for section, values in overrides.items():
                tree = tree | {section: tree[section] | values}
            previous = os.environ.get("LORA_REC_CACHE")
            os.environ["LORA_REC_CACHE"] = str(root / "cache")
            try:
                with every_epoch_is_the_best():
                    script["run"](build_config(Recipe, tree))
            finally:
                if previous is None:
                    del os.environ["LORA_REC_CACHE"]
                else:
                    os.environ["LORA_REC_CACHE"] = previous
            assert json.loads((output / "metrics.json").read_text())
        return output

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle):
    """A bundle as the recipe's defaults give it."""
    return make_bundle()


def pytest_generate_tests(metafunc):
    """Runs the suites of towers and adapters on CUDA as well, under the marker `gpu`."""
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)


@pytest.fixture
def device(request):
    """Builds the towers of a test on a device; use it in modules that build theirs through `tiny`."""
    import torch
    from accelerate.state import AcceleratorState
    from tiny import DEVICE

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    # The first Accelerator of a process settles the device of all later ones.
    AcceleratorState._reset_state(reset_partial_state=True)
    token = DEVICE.set(request.param)
    yield request.param
    DEVICE.reset(token)
    AcceleratorState._reset_state(reset_partial_state=True)

"""Tiny random models, their tokenizers, and a data set whose answer is obvious."""

import json
import os

# Before transformers is imported: tests never reach for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest

WORDS = [f"{kind}{n}" for kind in ("war", "love") for n in range(20)]
# Two tokens each: attention over a single token has no use for a query, so its adapter could not learn.
TITLES = [f"{word.rstrip('0123456789')} {word}" for word in WORDS]


def _tokenizer(folder, *, encoder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if encoder else ["<unk>", "<eos>"]
    vocabulary = {token: i for i, token in enumerate([*special, ";", "war", "love", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1] if encoder else special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        names = {"unk_token": "<unk>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of a tiny BERT, Llama and GPT-2 with random weights, by name."""
    import torch
    from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    common = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    folders = {}
    for name in ("bert", "llama", "gpt2"):
        folder = root / f"tiny-{name}"
        size = _tokenizer(folder, encoder=name == "bert")
        config = {
            "bert": lambda size: BertConfig(vocab_size=size, max_position_embeddings=64, **common),
            "llama": lambda size: LlamaConfig(vocab_size=size, num_key_value_heads=2, **common),
            "gpt2": lambda size: GPT2Config(vocab_size=size, n_embd=32, n_layer=3, n_head=4, n_positions=64),
        }[name](size)
        AutoModel.from_config(config).save_pretrained(folder)
        folders[name] = folder
    return folders


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
def bundle(recipe_tree, tmp_path_factory):
    """A bundle that the recipe script wrote, once for all tests."""
    import runpy
    from pathlib import Path

    from lora_rec.config import build_config
    from lora_rec.recipe import Recipe

    root = tmp_path_factory.mktemp("bundle")
    previous = os.environ.get("LORA_REC_CACHE")
    os.environ["LORA_REC_CACHE"] = str(root / "cache")
    try:
        script = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "two_tower.py"))
        script["run"](build_config(Recipe, recipe_tree | {"output": str(root / "tiny")}))
    finally:
        os.environ.pop("LORA_REC_CACHE") if previous is None else os.environ.update(LORA_REC_CACHE=previous)
    assert json.loads((root / "tiny" / "metrics.json").read_text())
    return root / "tiny"

"""Towers over tiny random backbones, and a few steps of training, for the tests."""

import json
import shutil
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

import lora_rec.pipeline.towers as wiring
from lora_rec.bundle import file_digest, list_files
from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import tokenize
from lora_rec.towers.adapters import load_adapter, save_adapter
from lora_rec.towers.two_tower import encode_states
from lora_rec.train.learning_check import LearningCheck

TEXTS = [
    "war war1",
    "war1 war2 love3 love4 ; war9 ; love1 war5",
    "love1 love2 ; war7 love8 ; war2",
    "love love3",
]
EVERY = np.arange(len(TEXTS))


DEVICE = ContextVar("device", default="cpu")
"""Where towers are built: the fixture `device` sets it to run a test on CUDA too."""


def make_tower(folder, **settings):
    torch.manual_seed(0)
    section = TowerSection(backbone=str(folder), **({"trained_layers": 2} | settings))
    return build_tower(section, width=8, where="item_tower", device=DEVICE.get())


def tokens_of(tower):
    return tokenize(tower.backbone_info.tokenizer, TEXTS, max_tokens=32)


def batch_of(tower):
    return tokens_of(tower).batch(EVERY).to(tower.device)


def train(tower, *, n_steps=4, learning_rate=0.05):
    """A few steps towards random vectors."""
    trained = tower.trained_parameters()
    optimizer = torch.optim.AdamW(trained.values(), lr=learning_rate)
    target = torch.nn.functional.normalize(
        torch.randn(len(TEXTS), 8, generator=torch.Generator().manual_seed(1)), dim=1
    )
    check = LearningCheck(trained, optimizer)
    batch = batch_of(tower)
    target = target.to(tower.device)
    tower.train()
    for step in range(1, n_steps + 1):
        (1 - (tower(batch) * target).sum(dim=1)).mean().backward()
        optimizer.step()
        check.after_step(step, last=step == n_steps)
        optimizer.zero_grad()
    tower.eval()


def states_of(tower, source=None):
    return encode_states(tower, source or tokens_of(tower), EVERY, token_budget=1000)


def reload(tower, folder, place, **settings):
    """Saves a tower's adapter and puts it on the backbone loaded anew."""
    save_adapter(tower.adapter, place, base_model_id="tiny", revision=None)
    again = make_tower(folder, adapter="none", **settings)
    again.adapter = load_adapter(
        again.backbone_info.model,
        place,
        tower.adapter.settings,
        first_layer=tower.first_trained_layer,
        where="item_tower",
    )
    again.model = again.adapter.model
    return again


@contextmanager
def every_epoch_is_the_best():
    """Keeps the last state of every training: one that fell back to its start would hold no adapter."""
    original = wiring.train_two_tower

    def rising(*arguments, **named):
        validate, scores = named["validate"], iter(range(1, 100))
        return original(*arguments, **(named | {"validate": lambda: (validate(), float(next(scores)))[1]}))

    wiring.train_two_tower = rising
    try:
        yield
    finally:
        wiring.train_two_tower = original


def rewrite(bundle, place, change):
    """Copies a bundle, changes it and writes its checksums anew, as somebody might who made it by hand."""
    shutil.copytree(bundle, place)
    change(place)
    manifest = json.loads((place / "bundle.json").read_text())
    manifest["files"] = {n: file_digest(place / n) for n in list_files(place) if n != "bundle.json"}
    (place / "bundle.json").write_text(json.dumps(manifest))
    return place

"""`lora-rec merge` of an adapter that was trained without labels: a plain model, to put another one on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.bundle import write_folder
from lora_rec.errors import BundleError
from lora_rec.export.merge import check_mergeable, load_as_trained, merge
from lora_rec.export.pretrained import read_facts
from lora_rec.text.collate import tokenize
from lora_rec.towers.adapters import check_adapter, load_adapter
from lora_rec.towers.layout import find_layout
from lora_rec.towers.two_tower import Tower, encode

TEXTS = ("The quick brown fox", "1 2 3; and another", "Heat (1995), Action, Crime", "shoes", "a; b; c; d")
LEAST_COSINE = 0.999


def merge_pretrained(folder: str | Path, output: str | Path, *, backbone: str | None = None) -> float:
    """Writes the backbone with the adapter in its weights, and the tokenizer, as transformers reads them.

    Args:
        folder: output of `recipes/pretrain.py`.
        output: a folder that is not there yet; written whole or not at all.
        backbone: where the base lies, if it was a local folder.

    Returns:
        The lowest cosine of a vector with the adapter beside the weights and in them.

    Raises:
        BundleError: the adapter is damaged, its base is another one, the output exists, or merging changes
            the vectors.
        TowerError: the adapter cannot be merged.
    """
    place, target = Path(folder), Path(output)
    if target.exists():
        raise BundleError(f"merge: {output} exists; name a folder that is not there yet")
    facts = read_facts(place)
    check_mergeable(facts["adapter"], where=str(folder))
    loaded = load_as_trained(
        backbone or facts["backbone"],
        revision=None if backbone else facts["revision"],
        precision=facts["precision"],
        compute=facts["compute"],
        where="merge",
    )
    if loaded.fingerprint != facts["fingerprint"]:
        raise BundleError(
            f"merge: the base at {loaded.source.base_model_id} is not the one that the adapter was trained on"
            f" ({facts['base_model_id']}); give the right one with --backbone"
        )
    check_adapter(place, facts["adapter"], where=str(folder))
    adapter = load_adapter(
        loaded.model,
        place,
        AdapterSettings(facts["adapter"], facts["adapter_settings"]),
        first_layer=find_layout(loaded.model).first_trained(facts["trained_layers"], where="merge"),
        where=str(folder),
    )
    tower = Tower(loaded, adapter, pooling=None, width=None)
    source, every = tokenize(loaded.tokenizer, TEXTS, max_tokens=32), np.arange(len(TEXTS))
    before = encode(tower, source, every, token_budget=1024)
    merged = merge(tower)
    cosine = float((before * encode(merged, source, every, token_budget=1024)).sum(axis=1).min())
    if cosine < LEAST_COSINE:
        raise BundleError(f"merge: a vector changes (cosine {cosine:.4f}); nothing was written; train lora")

    def fill(scratch: Path) -> None:
        model: Any = merged.model
        model.save_pretrained(str(scratch))
        loaded.tokenizer.save_pretrained(str(scratch))

    target.parent.mkdir(parents=True, exist_ok=True)
    write_folder(target, fill)
    return cosine

"""Reads the light half of a bundle and checks that its parts fit together."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lora_rec.bundle import read_manifest, read_unreplaced
from lora_rec.errors import BundleError
from lora_rec.rank.candidates import CandidateScorer
from lora_rec.rank.head import RankingHead
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.schema import ITEM_TEXTS, ITEM_VECTORS, Manifest

logger = logging.getLogger(__name__)

HEADS = ("head", "shown")


class Stored(NamedTuple):
    """What a folder holds, in the order of `Recommender`'s fields."""

    manifest: Manifest
    item_ids: tuple[str, ...]
    item_fields: dict[str, list[str]]
    item_vectors: NDArray[np.float32]
    spaces: ItemSpaces
    head: RankingHead | None
    metrics: dict[str, Any]
    shown: CandidateScorer | None


def read_stored(folder: str | Path) -> Stored:
    """Reads a bundle.

    Raises:
        BundleError: see `bundle.read_manifest`; or a part is missing, by its maker's wish or not, or is as
            wide or as long as another part does not say.
    """
    return read_unreplaced(folder, lambda: _read_stored(Path(folder)))


def is_shown_lists(manifest: Manifest) -> bool:
    """Says whether a bundle orders lists that were shown and ranks no catalogue."""
    return "head.safetensors" not in manifest.files and "shown.safetensors" in manifest.files


def _read_stored(folder: Path) -> Stored:
    manifest = read_manifest(folder)
    heads = {name for name in HEADS if f"{name}.safetensors" in manifest.files}
    if ITEM_VECTORS in manifest.left_out:
        raise BundleError(
            f"{folder}: it was pushed without the items' vectors and the head, so it needs items of yours:"
            " encode them with lora_rec.load_towers, or train a head on them with its recipe.yaml"
        )
    if not heads:
        raise BundleError(f"{folder}: no ranking head (head.safetensors); get the bundle again")
    if ITEM_TEXTS in manifest.left_out:
        logger.warning(
            "%s: pushed without the items' texts: titles are ids, and what looks at categories or words needs"
            " the texts (Recommender.with_item_fields)",
            folder,
        )
    try:
        return _read(folder, manifest, heads)
    except (KeyError, ValueError, OSError, TypeError, AttributeError, SafetensorError) as error:
        raise BundleError(f"{folder}: a file does not read ({error}); get the bundle again") from error


def _read(root: Path, manifest: Manifest, heads: set[str]) -> Stored:
    arrays = {name: load_file(root / f"{name}.safetensors") for name in heads}
    items = json.loads((root / "items.json").read_text(encoding="utf-8"))
    vectors = np.load(root / "item_vectors.npy", allow_pickle=False).astype(np.float32)
    spaces = ItemSpaces.load(root)
    head = None
    if "head" in heads:
        head = replace(RankingHead.from_arrays(arrays["head"]), popularity=spaces.popularity)
    n = manifest.n_items
    if not all(isinstance(item, str) for item in items["ids"]) or len(set(items["ids"])) < len(items["ids"]):
        raise ValueError("items.json: an id is no text, or there twice")
    lengths = {
        "items.json": len(items["ids"]),
        "similarity_vectors.npy": len(spaces.text),
        "factor_vectors.npy": n if spaces.factors is None else len(spaces.factors),
        "popularity.npy": n if spaces.popularity is None else len(spaces.popularity),
        "head.safetensors": n if head is None else head.n_items,
    } | {f"items.json, {name}": len(texts) for name, texts in items["fields"].items()}
    wrong = [f"{name} holds {length:,}" for name, length in lengths.items() if length != n]
    if wrong:
        raise BundleError(f"{root}: {wrong[0]} items, bundle.json says {n:,}; get the bundle again")
    if vectors.shape != (n, manifest.width):
        raise BundleError(
            f"{root}: item_vectors.npy is {' by '.join(map(str, vectors.shape))}, bundle.json says {n} by"
            f" {manifest.width}; get the bundle again"
        )
    return Stored(
        manifest=manifest,
        item_ids=tuple(items["ids"]),
        item_fields=items["fields"],
        item_vectors=vectors,
        spaces=spaces,
        head=head,
        shown=CandidateScorer.from_arrays(arrays["shown"]) if "shown" in heads else None,
        metrics=json.loads((root / "metrics.json").read_text(encoding="utf-8")),
    )

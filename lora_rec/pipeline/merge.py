"""`lora-rec merge`: plain models out of a bundle, after a look at what that changes in the lists."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from lora_rec.bundle import check_output, read_manifest, write_folder
from lora_rec.errors import BundleError
from lora_rec.export.loaded import LoadedTowers, load_towers
from lora_rec.export.merge import check_mergeable, load_in_full, merge
from lora_rec.export.sentences import write_sentence_transformer
from lora_rec.rank.ranker import Recommender
from lora_rec.rank.search import top_k
from lora_rec.schema import TOWERS, Manifest
from lora_rec.towers.two_tower import Tower

logger = logging.getLogger(__name__)

LEAST_OVERLAP = 0.99
N_HISTORIES = 500
HISTORY_LENGTH = 5
K = 10

_Array = NDArray[np.float32]


@dataclass(frozen=True)
class MergeReport:
    """What merging one tower changed in the lists over made-up histories of the bundle's items."""

    tower: str
    overlap: float
    """Mean share of the top-10 lists that stayed: adapter beside the trained weights against a plain model,
    both computed in fp32."""
    cosine: float
    """Lowest cosine of a vector before and after, likewise."""
    overlap_as_served: float
    """The same share against the tower as the bundle serves it, in bf16 or 8 bit for example: what fp32
    changes is in it too."""


def merge_bundle(
    bundle: str | Path,
    output: str | Path,
    *,
    user_backbone: str | None = None,
    item_backbone: str | None = None,
    original_base: bool = False,
    sentence_transformers: bool = False,
    force: bool = False,
) -> list[MergeReport]:
    """Writes `OUTPUT/user_tower` and `OUTPUT/item_tower`: plain transformers models, each with its tokenizer.

    Args:
        bundle: folder of a bundle.
        output: a folder that is not there yet; written whole or not at all.
        user_backbone: where the user tower's base lies, if the bundle cannot know it.
        item_backbone: the same for the item tower.
        original_base: merge into the base as it was before 8 or 4 bit, not into what those stand for.
        sentence_transformers: write each as a model of that library, which does the pooling and the map too.
        force: write although lists change.

    Raises:
        BundleError: the bundle is damaged or without the items' texts, the output exists, or less than .99
            of the lists stay.
        TowerError: an adapter cannot be merged.
    """
    folder, target = Path(bundle), Path(output)
    if target.exists():
        raise BundleError(f"merge: {output} exists; name a folder that is not there yet")
    check_output(target)
    manifest = read_manifest(folder)
    for name in TOWERS:
        check_mergeable(manifest.tower(name).adapter, where=name)
    recommender = Recommender.load(folder)
    if not recommender.item_fields:
        raise BundleError(
            f"merge: {bundle} was pushed without the items' texts, which lists before and after are made"
            " from; merge the bundle that it was pushed from"
        )
    overrides = dict(zip(TOWERS, (user_backbone, item_backbone), strict=True))
    served = load_towers(
        folder, user_backbone=user_backbone, item_backbone=item_backbone, precision=None, device="cpu"
    )
    texts = _texts(recommender, served)
    as_served = {name: _encode(served, name, texts[name]) for name in TOWERS}
    reports: list[MergeReport] = []

    def fill(scratch: Path) -> None:
        before, after = {}, {}
        for name in TOWERS:
            logger.info("%s: merging", name)
            tower = load_in_full(folder, manifest, name, backbone=overrides[name])
            setattr(served.model, name, tower)
            before[name] = _encode(served, name, texts[name])
            if original_base:
                tower = load_in_full(folder, manifest, name, backbone=overrides[name], original_base=True)
            merged = merge(tower)
            setattr(served.model, name, merged)
            after[name] = _encode(served, name, texts[name])
            if sentence_transformers:
                max_tokens = manifest.tower(name).max_tokens
                write_sentence_transformer(merged, scratch / name, max_tokens=max_tokens)
            else:
                _write_model(merged, scratch / name)
        reports.extend(_compare(name, as_served, before, after) for name in TOWERS)
        _refuse_changes(reports, force=force)
        for name, report in zip(TOWERS, reports, strict=True):
            _write_facts(scratch / name, manifest, name, report)

    write_folder(target, fill)
    return reports


def _texts(recommender: Recommender, towers: LoadedTowers) -> dict[str, list[str]]:
    """Gives all item texts, and histories made up of random items."""
    generator = np.random.default_rng(0)
    n_items = len(recommender.item_ids)
    length = min(HISTORY_LENGTH, n_items)
    histories = [generator.choice(n_items, size=length, replace=False).tolist() for _ in range(N_HISTORIES)]
    fields: dict[str, Any] = dict(recommender.item_fields)
    return {
        "user_tower": towers.render_histories(histories, fields),
        "item_tower": towers.render_items(fields),
    }


def _encode(towers: LoadedTowers, name: str, texts: list[str]) -> _Array:
    return towers.encode_users(texts) if name == "user_tower" else towers.encode_items(texts)


def _compare(
    name: str, as_served: dict[str, _Array], before: dict[str, _Array], after: dict[str, _Array]
) -> MergeReport:
    """Compares the lists with one tower merged and the other as it was."""
    return MergeReport(
        tower=name,
        overlap=_overlap(before, before | {name: after[name]}),
        cosine=float((before[name] * after[name]).sum(axis=1).min()),
        overlap_as_served=_overlap(as_served, as_served | {name: after[name]}),
    )


def _overlap(one: dict[str, _Array], other: dict[str, _Array]) -> float:
    lists = [top_k(v["user_tower"], v["item_tower"], k=K)[0].tolist() for v in (one, other)]
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(*lists, strict=True)]))


def _refuse_changes(reports: list[MergeReport], *, force: bool) -> None:
    changed = [r for r in reports if r.overlap < LEAST_OVERLAP]
    if changed and not force:
        worst = min(changed, key=lambda r: r.overlap)
        raise BundleError(
            f"merge: {worst.tower} keeps {worst.overlap:.3f} of its top-{K} lists, less than {LEAST_OVERLAP};"
            " nothing was written; use --force to write it all the same"
        )


def _write_model(tower: Tower, folder: Path) -> None:
    model: Any = tower.model
    model.save_pretrained(str(folder))
    tower.backbone_info.tokenizer.save_pretrained(str(folder))
    projection = {k: v.detach().contiguous() for k, v in tower.projection.state_dict().items()}
    save_file(projection, str(folder / "projection.safetensors"))


def _write_facts(folder: Path, manifest: Manifest, name: str, report: MergeReport) -> None:
    described = manifest.tower(name)
    facts = {
        "base_model_id": described.base_model_id,
        "revision": described.revision,
        "adapter": described.adapter,
        "pooling": described.pooling,
        "max_tokens": described.max_tokens,
        "comparison": asdict(report),
    }
    (folder / "tower.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

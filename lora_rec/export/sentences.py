"""A tower as a model of sentence-transformers, and such a model as a tower.

Mean and scale of a tower's map go into weights and bias of a dense layer, so that four of that library's own
modules say all that a tower does: transformer, pooling, dense, normalise.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import torch

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.errors import TowerError, missing_extra
from lora_rec.towers.adapters import Attached
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.two_tower import Tower

POOLING = {"mean": "mean", "first": "cls", "last": "lasttoken"}
"""Ours to theirs."""
MODULES = ("Transformer", "Pooling", "Dense", "Normalize")


def write_sentence_transformer(tower: Tower, folder: Path, *, max_tokens: int) -> None:
    """Writes a model that `SentenceTransformer(folder)` loads and that gives the tower's vectors.

    Args:
        tower: with its adapter merged, see `merge.merge`; in fp32.
        folder: made where it is not there.
        max_tokens: a longer text is cut at its end.

    Raises:
        LoraRecError: the library is not installed.
        TowerError: the tower holds an adapter beside its weights.
    """
    library = _library()
    if tower.adapter.settings.adapter != "none":
        raise TowerError(f"sentence-transformers: adapter {tower.adapter.settings.adapter!r} is not merged")
    projection = tower.projection
    weight = projection.weight * projection.scale
    model: Any = tower.model
    tokenizer = tower.backbone_info.tokenizer
    tokenizer.padding_side = "right"
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        modules = [
            library.Transformer(scratch, max_seq_length=max_tokens, model_kwargs={"dtype": torch.float32}),
            library.Pooling(tower.hidden_size, POOLING[tower.pooling]),
            library.Dense(
                tower.hidden_size,
                tower.width,
                activation_function=torch.nn.Identity(),
                init_weight=weight.detach().cpu().clone(),
                init_bias=(projection.bias - weight @ projection.mean).detach().cpu().clone(),
            ),
            library.Normalize(),
        ]
        from sentence_transformers import SentenceTransformer

        # Their own card names the folder that the model came from.
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


def read_sentence_transformer(folder: str | Path) -> tuple[Tower, int]:
    """Gives a tower, and how many tokens of a text it reads.

    Args:
        folder: of a model made of transformer, pooling, at most one dense layer, and normalising. Without
            a dense layer, the tower's map changes nothing.

    Raises:
        LoraRecError: the library is not installed.
        TowerError: the folder holds no such model, or other modules, of which nothing is loaded.
    """
    library = _library()
    place = Path(folder)
    paths = _find_modules(place)
    pooling = library.Pooling.load(str(place / paths["Pooling"]))
    modes = {theirs: ours for ours, theirs in POOLING.items()}
    mode = pooling.pooling_mode if isinstance(pooling.pooling_mode, str) else "+".join(pooling.pooling_mode)
    if mode not in modes:
        raise TowerError(f"{folder}: it pools by {mode}; a tower pools by {', '.join(modes)}")
    backbone = load_backbone(str(place / paths["Transformer"]), device="cpu", where="sentence-transformers")
    width = backbone.output_size
    dense = library.Dense.load(str(place / paths["Dense"])) if "Dense" in paths else None
    if dense is not None:
        width = _check_dense(dense, backbone.output_size, folder)
    plain = Attached(AdapterSettings("none", {}), backbone.model, 0)
    tower = Tower(backbone, plain, pooling=modes[mode], width=width)
    if dense is not None:
        tower.projection.weight.copy_(dense.linear.weight.detach())
        if dense.linear.bias is not None:
            tower.projection.bias.copy_(dense.linear.bias.detach())
    return tower.requires_grad_(False), _max_tokens(place / paths["Transformer"], backbone.tokenizer)


def _library() -> ModuleType:
    try:
        from sentence_transformers.sentence_transformer import modules
    except ModuleNotFoundError as error:
        raise missing_extra("sentence_transformers", extra="sentences") from error
    return modules


def _find_modules(folder: Path) -> dict[str, str]:
    """Gives the kind of each module and its sub-folder, in order."""
    try:
        listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        found = [(str(row["type"]).rsplit(".", 1), PurePosixPath(row["path"])) for row in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TowerError(f"{folder}: no model of sentence-transformers ({error}); give its folder") from error
    for (package, *kind), path in found:
        known = package.startswith("sentence_transformers.") and kind and kind[0] in MODULES
        if not known or path.is_absolute() or ".." in path.parts:
            name = ".".join([package, *kind])
            raise TowerError(
                f"{folder}: it has a module {name} at {path}, which no tower has; nothing was run"
            )
    kinds = [kind[0] for (_, *kind), _ in found]
    if kinds not in (list(MODULES), [kind for kind in MODULES if kind != "Dense"]):
        raise TowerError(f"{folder}: its modules are {', '.join(kinds)}; a tower is {', '.join(MODULES)}")
    return {kind[0]: str(path) for (_, *kind), path in found}


def _check_dense(dense: Any, hidden_size: int, folder: str | Path) -> int:
    if not isinstance(dense.activation_function, torch.nn.Identity) or getattr(dense, "use_residual", False):
        raise TowerError(f"{folder}: its dense layer is no linear map, which a tower's is")
    if dense.in_features != hidden_size:
        raise TowerError(
            f"{folder}: its dense layer takes {dense.in_features} numbers, the model gives {hidden_size}"
        )
    return int(dense.out_features)


def _max_tokens(folder: Path, tokenizer: Any) -> int:
    file = folder / "sentence_bert_config.json"
    tree = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return int(tree.get("max_seq_length") or tokenizer.model_max_length)

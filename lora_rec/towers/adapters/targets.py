"""Which modules of a backbone carry an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.errors import TowerError, did_you_mean
from lora_rec.towers.layout import Family, Layout, find_layout, linear_modules

ALL_LINEAR = "all-linear"
"""Stands for every linear module of the trained layers, as in peft."""


def trained_linear(model: nn.Module, layout: Layout, first_layer: int) -> dict[str, str]:
    """Gives the linear modules of the trained layers: path in the model to path in the layer."""
    if layout.layers is None:
        return {path: path for path in linear_modules(model)}
    found = {}
    for path in linear_modules(model):
        if path.startswith(f"{layout.layers}."):
            index, _, inside = path[len(layout.layers) + 1 :].partition(".")
            if int(index) >= first_layer:
                found[path] = inside
    return found


def find_targets(
    model: nn.Module,
    *,
    first_layer: int,
    names: Sequence[str] | None,
    where: str,
    described: str = "query_value",
) -> list[str]:
    """Gives the paths of the modules that get an adapter.

    Args:
        model: the backbone.
        first_layer: layers below it get none.
        names: as the user gave them, or `all-linear`; the family's own when left out.
        where: named in errors.
        described: which of the family's names are taken: `query_value`, `key_value` or `outputs`.

    Raises:
        TowerError: a name matches no linear module of those layers, or the type is unknown and no names are
            given.
    """
    layout = find_layout(model)
    inside = trained_linear(model, layout, first_layer)
    if names is not None and tuple(names) == (ALL_LINEAR,):
        return sorted(inside)
    wanted = names or getattr(require_family(model, layout, inside, where), described)
    found: list[str] = []
    for name in wanted:
        # A whole path stands in the files that peft writes.
        matches = [path for path, inner in inside.items() if name in (inner, path)]
        matches = matches or [path for path in inside if path.endswith(f".{name}")]
        if not matches:
            leaves = sorted({path.rsplit(".", 1)[-1] for path in inside})
            hint = did_you_mean(name, leaves) or "choose from those that are there"
            raise TowerError(
                f"{where}.target_modules: {name!r} matches no module of {_type(model)};"
                f" {hint} (linear modules: {', '.join(leaves)})"
            )
        found.extend(matches)
    return sorted(set(found))


def require_family(model: nn.Module, layout: Layout, inside: dict[str, str], where: str) -> Family:
    """Gives the described names of a type's modules, or says what is missing."""
    if layout.family is None:
        leaves = sorted({path.rsplit(".", 1)[-1] for path in inside})
        raise TowerError(
            f"{where}: type {_type(model)!r} is not described and resembles no described one; name the"
            f" modules with {where}.target_modules, adapter lora (linear modules: {', '.join(leaves)})"
        )
    return layout.family


def find_norms(model: nn.Module, *, first_layer: int) -> list[str]:
    """Gives the paths of the normalisations of the trained layers."""
    layout = find_layout(model)
    prefix = "" if layout.layers is None else f"{layout.layers}."
    found = []
    for path, module in model.named_modules():
        if not path.startswith(prefix) or not type(module).__name__.lower().endswith("norm"):
            continue
        if prefix and int(path[len(prefix) :].split(".", 1)[0]) < first_layer:
            continue
        found.append(path)
    return found


def is_transposed(model: nn.Module, targets: Sequence[str], *, where: str) -> bool:
    """Says whether the weights lie as (in, out); 4- and 8-bit loading has turned a Conv1D into a linear.

    Raises:
        TowerError: the targets are of both kinds.
    """
    kinds = {isinstance(model.get_submodule(path), Conv1D) for path in targets}
    if len(kinds) > 1:
        raise TowerError(f"{where}.target_modules: mix Conv1D and Linear modules; name modules of one kind")
    return kinds.pop()


def _type(model: nn.Module) -> str:
    return str(model.config.model_type)  # type: ignore[union-attr]


def check_start_rank(
    model: nn.Module, targets: Sequence[str], settings: AdapterSettings, *, where: str
) -> None:
    """Refuses a rank for which a module has too few directions to start from.

    Raises:
        TowerError: with the largest rank that there is.
    """
    sides = {path: _shorter_side(model.get_submodule(path)) for path in targets}
    least = min(sides, key=lambda path: sides[path])
    if settings["lora_rank"] > sides[least]:
        raise TowerError(
            f"{where}.lora_rank: {settings['lora_rank']}, and {least} has {sides[least]} directions that"
            f" {settings['lora_start']!r} could start from; give {sides[least]} at most, or lora_start=zero"
        )


def _shorter_side(module: nn.Module) -> int:
    """Gives the smaller number of a linear module's inputs and outputs."""
    if isinstance(module, nn.Linear):  # quantised ones are linear, too, and their weight has another shape
        return min(module.in_features, module.out_features)
    return min(module.weight.shape)  # type: ignore[arg-type, union-attr]

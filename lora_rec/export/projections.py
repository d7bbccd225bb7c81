"""The maps from the towers' states to the shared space, as tensors: read, and added up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from lora_rec.errors import BundleError
from lora_rec.schema import PROJECTIONS
from lora_rec.towers.two_tower import Projection


def read_projection(folder: Path, name: str, *, width: int, hidden_size: int) -> dict[str, torch.Tensor]:
    """Gives the projection of one tower.

    Args:
        folder: of a bundle.
        name: of the tower.
        width: of the embeddings, as bundle.json says.
        hidden_size: of the tower's states.

    Raises:
        BundleError: it is not there, or of another size.
    """
    tensors = load_file(str(folder / PROJECTIONS))
    found = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
    sizes = {
        "mean": (hidden_size,),
        "scale": (hidden_size,),
        "weight": (width, hidden_size),
        "bias": (width,),
    }
    if set(found) != set(sizes):
        raise BundleError(f"{name}: {PROJECTIONS} lacks its map; get the bundle again")
    if any(tuple(found[key].shape) != size for key, size in sizes.items()):
        made = " numbers of ".join(map(str, found["weight"].shape))
        raise BundleError(
            f"{name}: its map makes {made}, bundle.json says {width} of {hidden_size}; get the bundle again"
        )
    return found


def copy_state(projection: Projection) -> dict[str, torch.Tensor]:
    """Gives copies of a projection's tensors."""
    return {name: tensor.clone() for name, tensor in projection.state_dict().items()}


def mix_projections(
    parts: Mapping[str, dict[str, torch.Tensor]], weights: Mapping[str, float]
) -> dict[str, torch.Tensor]:
    """Gives the weighted sum of affine maps, which is an affine map of states that are not standardised."""
    first = next(iter(parts.values()))
    weight, bias = torch.zeros_like(first["weight"]), torch.zeros_like(first["bias"])
    for name, part in parts.items():
        scaled = part["weight"] * part["scale"]
        weight += weights[name] * scaled
        bias += weights[name] * (part["bias"] - scaled @ part["mean"])
    plain = {"mean": torch.zeros_like(first["mean"]), "scale": torch.ones_like(first["scale"])}
    return plain | {"weight": weight, "bias": bias}

"""How many bytes the backward pass needs kept: a forward pass of the trained layers without any numbers.

What autograd keeps depends on the adapter, the type of model, its precision and the kernel of attention. So
nothing is modelled here: the layers run on fake tensors, which have a shape, a type and a device but no
storage, and what autograd would have kept is added up.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, PretrainedConfig

from lora_rec.pipeline.plan_memory import straighten
from lora_rec.towers.adapters import Attached, prefix_inputs
from lora_rec.towers.precision import DTYPES, QUANTISED, Precision, halve_products
from lora_rec.towers.split import Halves


def meta_model(config: PretrainedConfig, precision: Precision) -> nn.Module:
    """Builds a backbone without storage, as `load_backbone` would leave it."""
    with torch.device("meta"):
        model = AutoModel.from_config(copy.deepcopy(config), dtype=DTYPES[precision.compute])
        if precision.name in QUANTISED:
            straighten(model)
        elif precision.name != precision.compute:
            halve_products(model)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    model.requires_grad_(False)
    return model


def activation_memory(
    backbone: Any, attached: Attached, *, rows: int, length: int, device: torch.device
) -> int:
    """Gives the bytes that autograd keeps for one micro-batch of texts of the same length.

    Args:
        backbone: on the meta device, under its adapter; its tensors are exchanged, so it is of no other use
            afterwards. Modules in 8 or 4 bit are counted as plain ones of the type in which they compute: a
            frozen one keeps nothing of its input either way.
        attached: the adapter on it.
        rows: texts in the micro-batch.
        length: tokens of each.
        device: where it would run, because each device has its own kernels of attention.
    """
    attached.model.eval()  # as in a tower: of all dropouts, only the adapter's are on
    for module in attached.dropouts():
        module.train()
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[_storage(tensor)] = tensor  # held, so that no other storage gets its place
        return tensor

    with FakeTensorMode(), device:
        own = {_storage(tensor) for tensor in _exchange_tensors(attached.model)}
        ids = torch.zeros(rows, length, dtype=torch.long)
        ones = torch.ones_like(ids)
        options = prefix_inputs(attached.model, backbone, ones, first_layer=attached.first_layer)
        if options["attention_mask"] is ones:
            options["attention_mask"] = None  # models look for zeros in it, and fake ones cannot be looked at
        halves = Halves(backbone, at=attached.first_layer)
        states = torch.zeros(rows, length, backbone.config.hidden_size, dtype=backbone.dtype)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if attached.first_layer:
                halves.run_upper(states, **options)
            else:
                halves.run_whole(ids, **options)
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def _exchange_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Puts an empty tensor in the place of each and gives the new ones; what was shared stays shared."""
    pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            tensors: dict[str, Any] = held
            for name, old in tensors.items():
                if old is None:
                    continue
                if id(old) not in pairs:
                    new: torch.Tensor = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, old.requires_grad)
                    pairs[id(old)] = (old, new)  # the old one is held, so that no other gets its id
                tensors[name] = pairs[id(old)][1]
    return [new for _, new in pairs.values()]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata

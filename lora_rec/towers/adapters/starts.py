"""Starts of a LoRA that know the full weights (LoftQ) or the inputs (EVA) of its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from peft import EvaConfig, initialize_lora_eva_weights
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_rec.towers.adapters.attach import Attached
from lora_rec.towers.adapters.counter import lora_layers, weight_of
from lora_rec.towers.precision import full_weight

EVA_SPREAD = 2  # a module may get up to this many times its share of the ranks


def start_from_weights(attached: Attached, load_full: Callable[[], nn.Module]) -> None:
    """Gives a LoRA on a 4-bit backbone the leading part of what quantisation took away (LoftQ, one step).

    Args:
        attached: with any start; those other than `loftq` are left alone.
        load_full: gives the same backbone in full precision.
    """
    if attached.settings.adapter != "lora" or attached.settings["lora_start"] != "loftq":
        return

    full = load_full()
    with torch.no_grad():
        for path, layer in lora_layers(attached.model).items():
            original = full.get_submodule(path)
            weight = weight_of(original).float()
            if isinstance(original, Conv1D):
                weight = weight.T  # it lies as (in, out), and is a linear after 4-bit loading
            kept = full_weight(layer.get_base_layer())
            u, s, v = torch.linalg.svd(weight.to(kept.device) - kept, full_matrices=False)
            root = (s[: layer.r["default"]] / layer.scaling["default"]).sqrt()
            layer.lora_A["default"].weight.copy_(root[:, None] * v[: len(root)])
            layer.lora_B["default"].weight.copy_(u[:, : len(root)] * root)


def start_from_inputs(
    attached: Attached, run: Callable[[Any], object], batches: Iterable[tuple[Any, torch.Tensor]]
) -> None:
    """Gives a LoRA the leading directions of its modules' inputs (EVA), computed exactly, not by streaming.

    The ranks are spread over the modules by explained variance; every module keeps at least one.

    Args:
        attached: with any start; those other than `eva` are left alone.
        run: runs the tower on one batch.
        batches: batches with their attention masks (B, L).
    """
    if attached.settings.adapter != "lora" or attached.settings["lora_start"] != "eva":
        return
    layers = lora_layers(attached.model)
    moments = {path: torch.zeros(layer.in_features, layer.in_features) for path, layer in layers.items()}
    mask = torch.zeros(0)

    def collect(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            states = inputs[0]
            if states.shape[:2] == mask.shape:
                real = states[mask]
            elif states.shape[0] == mask.numel():  # OPT runs its feed-forward block on (B * L, H)
                real = states[mask.flatten()]
            else:
                return  # DeBERTa's projections also read the relative positions, which are no texts
            real = real.float().cpu()
            moments[path].add_(real.T @ real)

        return hook

    peft_model: Any = attached.model
    with torch.no_grad(), ExitStack() as stack, peft_model.disable_adapter():
        for path, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(collect(path)).remove)
        for batch, attention_mask in batches:
            mask = attention_mask.bool()
            run(batch)
    rank = attached.settings["lora_rank"]
    directions, explained = {}, []
    for path, moment in moments.items():
        values, vectors = torch.linalg.eigh(moment.double())
        limit = min(EVA_SPREAD * rank, len(values))
        directions[path] = vectors.flip(1)[:, :limit].T.float()
        shares = (values.flip(0)[:limit] / values.sum()).tolist()
        explained += [(share, path) for share in shares[1:]]
    chosen = Counter({path: 1 for path in layers})
    chosen.update(path for _, path in sorted(explained, reverse=True)[: (rank - 1) * len(layers)])
    state = {
        f"base_model.model.{path}": vectors[: chosen[path]].contiguous()
        for path, vectors in directions.items()
    }
    config = peft_model.peft_config["default"]
    config.init_lora_weights, config.eva_config = "eva", EvaConfig()
    initialize_lora_eva_weights(peft_model, eva_state_dict=state)
    # peft makes the tensors anew, in the type of the layer below; they train in full precision.
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()

"""A LoRA that starts from the weights' leading directions (PiSSA, OLoRA), beside weights that stay put.

Both take the adapter's first value out of the backbone's weights. Here the weights stay, and a second, frozen
adapter of the opposite sign takes it out instead: nothing is rounded into the weights, other adapters on the
same backbone are not touched, and saving joins both into one plain LoRA.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

COUNTER = "start"
"""Name of the frozen adapter that takes the first value out."""


def attach_with_start(model: nn.Module, config: LoraConfig) -> nn.Module:
    """Attaches a LoRA that starts from the weights' own leading directions, with its frozen counterpart."""
    paths: list[str] = list(config.target_modules or [])
    originals = {path: weight_of(model.get_submodule(path)).detach().clone() for path in paths}
    under: Any = get_peft_model(model, config)  # type: ignore[arg-type]
    for path, weight in originals.items():
        weight_of(under.base_model.model.get_submodule(path).base_layer).data.copy_(weight)
    counter = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        init_lora_weights=False,
        target_modules=paths,
        fan_in_fan_out=config.fan_in_fan_out,
        task_type=config.task_type,
    )
    under.add_adapter(COUNTER, counter)
    with torch.no_grad():
        for layer in lora_layers(under).values():
            layer.lora_A[COUNTER].weight.copy_(layer.lora_A["default"].weight)
            layer.lora_B[COUNTER].weight.copy_(-layer.lora_B["default"].weight)
    under.base_model.set_adapter(["default", COUNTER])
    for name, parameter in under.named_parameters():
        if f".{COUNTER}." in name:
            parameter.requires_grad_(False)
    return under


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Gives the LoRA (and AdaLoRA) layers by their path in the backbone."""
    if not isinstance(model, PeftModel):
        return {}
    base: Any = model.base_model.model
    return {path: module for path, module in base.named_modules() if isinstance(module, LoraLayer)}


def weight_of(module: nn.Module) -> torch.Tensor:
    """Gives a module's weight, as a tensor for the type checker."""
    return module.weight  # type: ignore[return-value]

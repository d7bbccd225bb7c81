"""Prefix tuning on the trained layers: learned keys and values before the text's own.

peft keeps the tensors and, where all layers are trained, loads the folder by itself. It would run every layer
with a prefix; here only the trained ones have it, so what lies below stays frozen and can be cached.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from peft import PeftModelForFeatureExtraction, PrefixTuningConfig
from torch import nn
from transformers import DynamicCache

from lora_rec.errors import TowerError
from lora_rec.towers.layout import find_layout


def add_prefix(model: nn.Module, *, n_virtual_tokens: int, first_layer: int, where: str) -> nn.Module:
    """Attaches a prefix to the layers from `first_layer` up.

    Raises:
        TowerError: the type takes no keys and values from outside.
    """
    config: Any = model.config
    if _cache_argument(model) is None or config.model_type in _WITHOUT:
        raise TowerError(
            f"{where}.adapter: 'prefix' does not work with {config.model_type}, which takes no keys and"
            " values from outside; use lora or bottleneck"
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    settings = PrefixTuningConfig(
        num_virtual_tokens=n_virtual_tokens,
        num_layers=find_layout(model).n_layers - first_layer,
        num_attention_heads=heads,
        token_dim=heads * head_width,
        num_transformer_submodules=1,
        task_type="FEATURE_EXTRACTION",
    )
    under: Any = PeftModelForFeatureExtraction(model, settings)  # type: ignore[arg-type]
    for prompt in under.prompt_encoder.values():
        prompt.float()
        nn.init.normal_(prompt.embedding.weight, std=0.02)
    return under


_WITHOUT = ("modernbert", "deberta-v2", "albert", "distilbert", "gpt_neo", "bloom")


def _cache_argument(model: nn.Module) -> str | None:
    """Gives the name by which the model's forward takes keys and values; it changed in transformers 5."""
    names = inspect.signature(type(model).forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def prefix_inputs(
    model: Any, backbone: nn.Module, attention_mask: torch.Tensor, *, first_layer: int
) -> dict[str, Any]:
    """Gives the attention mask, and for prefix tuning the learned keys and values, for the upper half.

    Args:
        model: the backbone under its adapter.
        backbone: the model itself.
        attention_mask: (B, L) of the text.
        first_layer: the first layer with a prefix.
    """
    encoders = getattr(model, "prompt_encoder", None)
    if not encoders:
        return {"attention_mask": attention_mask}
    active = model.active_adapter
    config = model.peft_config[active]
    weights = encoders[active].embedding.weight
    size, length = len(attention_mask), config.num_virtual_tokens
    dtype = next(p.dtype for p in backbone.parameters() if p.is_floating_point())
    width = config.token_dim // config.num_attention_heads
    # (n, layers * 2 * heads * width) to one (B, heads, n, width) for the keys and the values of each layer
    states = weights.view(length, config.num_layers * 2, config.num_attention_heads, width).to(dtype)
    states = states.permute(1, 2, 0, 3).unsqueeze(1).expand(-1, size, -1, -1, -1)
    cache = DynamicCache()
    for layer in range(first_layer + config.num_layers):
        # Layers below do not run in the upper half; they only have to exist and be as long.
        place = 2 * max(0, layer - first_layer)
        cache.update(states[place], states[place + 1], layer)
    ones = torch.ones(size, length, dtype=attention_mask.dtype, device=attention_mask.device)
    name = _cache_argument(backbone)
    assert name is not None  # add_prefix has refused the others
    return {"attention_mask": torch.cat([ones, attention_mask], dim=1), name: cache}

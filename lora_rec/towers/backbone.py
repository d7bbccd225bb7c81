"""Loads a frozen language model with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lora_rec.errors import TowerError
from lora_rec.towers.precision import (
    DTYPES,
    QUANTISED,
    Precision,
    default_device,
    keep_weights_as_loaded,
    quantisation_options,
    resolve_precision,
)
from lora_rec.towers.source import BackboneSource, fingerprint, resolve_backbone, weight_bytes


@dataclass(frozen=True)
class Backbone:
    """A frozen model with its tokenizer."""

    model: nn.Module
    tokenizer: Any
    kind: str
    """`encoder` or `decoder`."""
    source: BackboneSource
    precision: Precision
    fingerprint: str
    """SHA-256 over the configuration, the weights and the tokenizer files."""

    @property
    def hidden_size(self) -> int:
        """Width of the states between the layers."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def output_size(self) -> int:
        """Width of the last states; small OPT models project them."""
        return int(getattr(self.model.config, "word_embed_proj_dim", self.hidden_size))

    @property
    def embeddings(self) -> nn.Module:
        """What turns token ids into the first states."""
        found: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return found

    @property
    def options(self) -> dict[str, bool]:
        """Gives what every call of the model's forward needs beside its inputs."""
        return {"use_cache": False} if self.kind == "decoder" else {}


def backbone_kind(config: PretrainedConfig) -> str | None:
    """Says whether a model type is an `encoder` (BERT-type) or a `decoder` (GPT-type); None when neither."""
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        return "encoder"
    return "decoder" if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def read_config(source: BackboneSource, *, name: str, where: str) -> tuple[PretrainedConfig, str]:
    """Reads a backbone's configuration and says whether it is an `encoder` or a `decoder`.

    Raises:
        TowerError: the configuration does not read, or the type is neither.
    """
    try:
        config = AutoConfig.from_pretrained(source.folder)
    except (OSError, ValueError) as error:
        raise TowerError(
            f"{where}.backbone: {name!r} has no readable config.json ({error}); check the model"
        ) from error
    kind = backbone_kind(config)
    if kind is None:
        raise TowerError(
            f"{where}.backbone: {name!r} is of type {config.model_type!r}, neither a BERT-type encoder"
            " nor a GPT-type decoder; give one of these"
        )
    return config, kind


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    precision: str = "fp32",
    compute: str | None = None,
    device: str | torch.device | None = None,
    where: str = "backbone",
) -> Backbone:
    """Loads a backbone, frozen and with dropout off.

    Args:
        name: see `resolve_backbone`.
        revision: branch, tag or commit on the Hub.
        precision: `fp32`, `bf16`, `8bit` (LLM.int8), `4bit` (nf4, double quantisation), or `auto`.
        compute: for 8 and 4 bit, the type of what is not quantised; by device when left out.
        device: of torch; the current CUDA device, or the CPU, when left out.
        where: named in errors, e.g. `user_tower`.

    Raises:
        TowerError: the backbone is not there, is neither an encoder nor a decoder, or its files do not load.
    """
    source = resolve_backbone(name, revision=revision, where=f"{where}.backbone")
    _, kind = read_config(source, name=name, where=where)
    place = torch.device(device) if device is not None else default_device()
    resolved = resolve_precision(precision, compute, n_bytes=weight_bytes(source.folder), device=place)
    options: dict[str, Any] = {"dtype": DTYPES[resolved.compute], "use_safetensors": True}
    if resolved.name in QUANTISED:
        options |= quantisation_options(resolved, place)
    try:
        model = AutoModel.from_pretrained(source.folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(source.folder)
    except (OSError, ValueError) as error:
        raise TowerError(
            f"{where}.backbone: {name!r} does not load ({error}); it needs safetensors weights"
            " and tokenizer files"
        ) from error
    if resolved.name in QUANTISED:
        keep_weights_as_loaded(model)
    else:
        model.to(place)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # we pool ourselves
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # in the tokenizer alone; padding is known from the mask
    model.requires_grad_(False)
    model.eval()
    return Backbone(model, tokenizer, kind, source, resolved, fingerprint(source.folder))

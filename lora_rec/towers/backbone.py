"""Loads a frozen language model with its tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lora_rec.errors import TowerError
from lora_rec.towers.lm_head import take_head
from lora_rec.towers.precision import (
    DTYPES,
    QUANTISED,
    Precision,
    default_device,
    halve_products,
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
    lm_head: nn.Module | None = None
    """From last states to logits of tokens; None unless it was asked for."""

    @property
    def hidden_size(self) -> int:
        """Width of the states between the layers."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def output_size(self) -> int:
        """Width of the last states; small OPT models project them."""
        return _output_size(self.model.config)

    @property
    def embeddings(self) -> nn.Module:
        """What turns token ids into the first states."""
        found: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return found

    @property
    def options(self) -> dict[str, bool]:
        """Gives what every call of the model's forward needs beside its inputs."""
        return {"use_cache": False} if self.kind == "decoder" else {}


def _output_size(config: Any) -> int:
    return int(getattr(config, "word_embed_proj_dim", config.hidden_size))


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
    if config.get_text_config() is not config:
        raise TowerError(
            f"{where}.backbone: {name!r} is of type {config.model_type!r}, which reads more than text; give"
            " a model for text alone, such as the smallest ones of its family"
        )
    return config, kind


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    precision: str = "fp32",
    compute: str | None = None,
    device: str | torch.device | None = None,
    lm_head: bool = False,
    where: str = "backbone",
) -> Backbone:
    """Loads a backbone, frozen and with dropout off.

    Args:
        name: see `resolve_backbone`.
        revision: branch, tag or commit on the Hub.
        precision: `fp32`, `bf16`, `8bit` (LLM.int8), `4bit` (nf4, double quantisation), or `auto`.
        compute: for 8 and 4 bit, the type of what is not quantised; by device when left out. For `bf16`, that
            of all but linear modules; bf16 when left out.
        device: of torch; the current CUDA device, or the CPU, when left out.
        lm_head: also give a head that scores tokens: the checkpoint's, or one tied to the input embeddings.
        where: named in errors, e.g. `user_tower`.

    Raises:
        TowerError: the backbone is not there, is neither an encoder nor a decoder, or its files do not load.
    """
    source = resolve_backbone(name, revision=revision, where=f"{where}.backbone")
    _, kind = read_config(source, name=name, where=where)
    place = _check_device(device, where=where) if device is not None else default_device()
    resolved = resolve_precision(precision, compute, n_bytes=weight_bytes(source.folder), device=place)
    options: dict[str, Any] = {"dtype": DTYPES[resolved.compute], "use_safetensors": True}
    if resolved.name in QUANTISED:
        options |= quantisation_options(resolved, place)
    try:
        model, head = _load_model(source, kind, lm_head, options)
        tokenizer = AutoTokenizer.from_pretrained(source.folder)
    except (OSError, ValueError) as error:
        raise TowerError(
            f"{where}.backbone: {name!r} does not load ({error}); it needs safetensors weights"
            " and tokenizer files"
        ) from error
    if resolved.name == "bf16" and resolved.compute == "fp32":
        halve_products(model)
    if resolved.name in QUANTISED:
        for part in filter(None, (model, head)):
            keep_weights_as_loaded(part)
    else:
        model.to(place)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # we pool ourselves
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # in the tokenizer alone; padding is known from the mask
    model.requires_grad_(False)
    model.eval()
    if head is not None:
        head.to(place)
    return Backbone(model, tokenizer, kind, source, resolved, fingerprint(source.folder), head)


def _check_device(name: str | torch.device, *, where: str) -> torch.device:
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TowerError(f"{where}: device {str(name)!r} cannot be used ({reason}); name another") from error
    return place


@contextmanager
def _without_report() -> Iterator[None]:
    """Keeps back what transformers says of a checkpoint without a head: `take_head` looks at that."""
    logger = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        return not any(mark in str(record.msg) for mark in ("LOAD REPORT", "checkpoint seem corrupted"))

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _load_model(
    source: BackboneSource, kind: str, lm_head: bool, options: dict[str, Any]
) -> tuple[Any, nn.Module | None]:
    """Gives the backbone, the same with and without a head."""
    if not lm_head:
        return AutoModel.from_pretrained(source.folder, **options), None
    auto: Any = AutoModelForMaskedLM if kind == "encoder" else AutoModelForCausalLM
    with _without_report():
        full, report = auto.from_pretrained(source.folder, output_loading_info=True, **options)
    full.requires_grad_(False)
    full.eval()
    return full.base_model, take_head(full, report["missing_keys"], hidden_size=_output_size(full.config))

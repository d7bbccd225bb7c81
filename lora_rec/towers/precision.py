"""How a backbone's weights are held: full, half, or quantised by bitsandbytes; nothing else imports that."""

from __future__ import annotations

import importlib.util
import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from lora_rec.errors import missing_extra

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
QUANTISED = ("8bit", "4bit")


@dataclass(frozen=True)
class Precision:
    """How the weights of a backbone are held and multiplied."""

    name: str
    """`fp32`, `bf16`, `8bit` or `4bit`."""
    compute: str
    """`fp32` or `bf16`: type of the hidden states, and of the weights that are neither quantised nor, in
    `bf16`, those of linear modules."""

    @property
    def multiplies_in_half(self) -> bool:
        """Whether the linear modules' products are in bf16."""
        return "bf16" in (self.name, self.compute)

    @property
    def key(self) -> str:
        """Names both, for cache keys."""
        return self.name if self.name == self.compute else f"{self.name}-{self.compute}"


def resolve_precision(
    precision: str, compute: str | None, *, n_bytes: int, device: torch.device | None = None
) -> Precision:
    """Settles what `auto` and a missing compute type mean on a device, and logs why.

    Args:
        precision: `auto`, `fp32`, `bf16`, `8bit` or `4bit`.
        compute: `fp32`, `bf16` or None; has no effect on `auto` and `fp32`.
        n_bytes: size of the weights in full precision.
        device: where the weights will lie; the current CUDA device, or the CPU, when left out.
    """
    device = device or default_device()
    half, why_half = _fast_half(device)
    if precision == "auto":
        precision = "bf16" if half else "fp32"
        reason = why_half
        if device.type == "cuda":
            # Of the whole memory, not of what is free: every process of a run has to choose alike.
            whole = torch.cuda.get_device_properties(device).total_memory
            if n_bytes / 2 > whole / 3:
                precision, reason = "4bit", f"bf16 would fill more than a third of {whole / 1e9:.1f} GB"
        # Of a CPU's time in bf16 nearly all is products, so the states may as well keep their digits.
        compute = "fp32" if precision == "bf16" and device.type == "cpu" else None
        states = ", hidden states in fp32" if precision != (compute or precision) else ""
        logger.info("precision auto: %s (%s%s)", precision, reason, states)
    elif precision == "bf16" and not half:
        logger.warning("precision bf16: %s, so fp32 is several times faster; auto takes that", why_half)
    if precision == "fp32":
        return Precision("fp32", "fp32")
    if precision == "bf16":
        return Precision("bf16", compute or "bf16")
    if compute is None:
        compute = "bf16" if half else "fp32"
        logger.info("compute type of %s: %s (%s)", precision, compute, why_half)
    return Precision(precision, compute)


def default_device() -> torch.device:
    """Gives the current CUDA device, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _fast_half(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
        return fast, f"{torch.cuda.get_device_name(device)} {'has' if fast else 'lacks'} bf16"
    abilities = torch.cpu.get_capabilities()
    fast = bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return fast, f"this processor {'multiplies' if fast else 'does not multiply'} bf16 in hardware"


class _HalfLinear(nn.Linear):
    """Multiplies in the type of its weight and answers in the type that it was asked in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.linear(input.to(self.weight.dtype), self.weight, self.bias).to(input.dtype)


class _HalfConv1D(Conv1D):
    """The same of GPT-2's transposed modules."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(x.to(self.weight.dtype))
        return found.to(x.dtype)


def halve_products(model: nn.Module) -> None:
    """Brings the linear modules of an fp32 model to bf16, and leaves everything between them as it is.

    The states that layers add to keep their digits, so they come nearer to those of fp32 than where all is
    bf16, at little cost where products take the time.
    """
    for module in model.modules():
        if type(module) in (nn.Linear, Conv1D):
            module.to(torch.bfloat16)
            module.__class__ = _HalfLinear if type(module) is nn.Linear else _HalfConv1D


def quantisation_options(precision: Precision, device: torch.device) -> dict[str, Any]:
    """Gives what `from_pretrained` needs to quantise while it loads."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", extra="train")
    if precision.name == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[precision.compute],
        )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_weights_as_loaded(model: nn.Module) -> None:
    """Stops bitsandbytes from repacking 4-bit weights in place in the first forward without gradients.

    After that, training would go on with no gradient and no error (Llama) or fail (BERT, GPT-2).
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


@torch.no_grad()
def dequantise(model: nn.Module) -> None:
    """Replaces every quantised linear module by a plain fp32 one with the very weights that it stands for.

    One that was a `Conv1D` before it was quantised becomes one again, or the model would not load once saved.
    """
    import bitsandbytes

    for path, module in list(model.named_modules()):
        if not isinstance(module, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)):
            continue
        was_transposed = getattr(module, "source_cls", None) is Conv1D
        if was_transposed:
            plain: Any = Conv1D(0, 0)
            plain.nf, plain.nx = module.out_features, module.in_features
        else:
            plain = nn.Linear(
                module.in_features, module.out_features, bias=module.bias is not None, device="meta"
            )
        weight = full_weight(module)
        plain.weight = nn.Parameter(weight.T.contiguous() if was_transposed else weight, requires_grad=False)
        if module.bias is not None:
            plain.bias = nn.Parameter(module.bias.float(), requires_grad=False)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, plain)
    nn.Module.float(model)  # the model's own refuses, since it was quantised
    config: Any = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # or save_pretrained would write a plain model as a quantised one
    for name in (
        "hf_quantizer",
        "is_quantized",
        "is_loaded_in_4bit",
        "is_loaded_in_8bit",
        "quantization_method",
    ):
        if name in model.__dict__:
            delattr(model, name)


def full_weight(module: nn.Module) -> torch.Tensor:
    """Gives a module's weight in fp32; for a quantised one, what its codes stand for."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    weight: Any = module.weight
    return dequantize_bnb_weight(weight, getattr(module, "state", None)).detach().float()


def n_weights(parameter: nn.Parameter) -> int:
    """Counts the weights that a tensor stands for: 4-bit tensors keep two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)

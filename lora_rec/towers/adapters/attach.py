"""Puts an adapter of any kind on a backbone; at its start the model's outputs are unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.errors import TowerError
from lora_rec.towers.adapters.bottleneck import add_bottlenecks
from lora_rec.towers.adapters.counter import attach_with_start
from lora_rec.towers.adapters.prefix import add_prefix
from lora_rec.towers.adapters.targets import check_start_rank, find_norms, find_targets, is_transposed
from lora_rec.towers.layout import find_layout

TASK = "FEATURE_EXTRACTION"
UNKNOWN_STEPS = 1_000_000  # AdaLoRA's schedule is set by the training loop: train.adalora
_PLAIN_LINEAR_ONLY = ("loha", "oft")


@dataclass(frozen=True, eq=False)
class Attached:
    """A backbone under its adapter."""

    settings: AdapterSettings
    model: nn.Module
    """A `PeftModel`, or the backbone itself for `bottleneck`, `full` and `none`."""
    first_layer: int
    """The adapter touches nothing below this layer."""
    is_continued: bool = False
    """Whether it was learned before; see `saved.attach_saved`."""

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors that learn, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def dropouts(self) -> list[nn.Module]:
        """Gives the adapter's own dropout modules; those of the frozen model stay off."""
        marks = (".lora_dropout.", ".vera_dropout.")
        return [
            m
            for name, m in self.model.named_modules()
            if isinstance(m, nn.Dropout) and any(mark in name for mark in marks)
        ]

    def switch_dropouts(self, on: bool) -> None:
        """Switches the adapter's own dropout; peft's DoRA asks its layer, not the module, whether to drop."""
        for module in self.dropouts():
            module.train(on)
        for layer in self.model.modules():
            if len(getattr(layer, "lora_magnitude_vector", ())):
                layer.training = on  # of what the layer holds nothing else is switched

    @property
    def starts_elsewhere(self) -> bool:
        """Whether the model's outputs change as soon as the adapter is attached.

        LoftQ mends what 4 bit lost, keys before the text take attention, whatever they are, and what was
        learned before stays.
        """
        loftq = self.settings.adapter == "lora" and self.settings["lora_start"] == "loftq"
        return loftq or self.settings.adapter == "prefix" or self.is_continued

    def learning_rate_factor(self, name: str) -> float:
        """Gives the factor of the learning rate for one trained tensor (LoRA+, AdaLoRA)."""
        if self.settings.adapter == "lora" and ".lora_B." in name:
            return float(self.settings["lora_plus_ratio"])
        if ".lora_E." in name:
            # Adam moves every number by about the rate. An entry of a unit vector of width H is about
            # 1 / sqrt(H), a singular value about 1: this makes their relative steps alike.
            return math.sqrt(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        return 1.0


def attach(
    model: nn.Module, settings: AdapterSettings, *, trained_layers: int | None, where: str
) -> Attached:
    """Attaches an adapter.

    Args:
        model: a frozen backbone.
        settings: which adapter, and its settings.
        trained_layers: number of last layers that it touches; None for all.
        where: named in errors, e.g. `item_tower`.

    Raises:
        TowerError: see `find_targets` and `Layout.first_trained`; or the adapter does not work with this type
            of model or would train in half precision.
    """
    first = find_layout(model).first_trained(trained_layers, where=where)
    name = settings.adapter
    if name == "full":
        _unfreeze(model, first)
        under: nn.Module = model
    elif name == "none":
        under = model
    elif name == "bottleneck":
        add_bottlenecks(model, width=settings["bottleneck_width"], first_layer=first, where=where)
        under = model
    elif name == "prefix":
        under = add_prefix(
            model, n_virtual_tokens=settings["n_virtual_tokens"], first_layer=first, where=where
        )
    else:
        config = _CONFIGS[name](model, settings, first, where)
        taken_out = name == "lora" and settings["lora_start"] in ("pissa", "olora")
        make: Any = attach_with_start if taken_out else get_peft_model
        under = make(model, config)
        if name == "adalora":
            _mend_adalora(under)
    keep_compute_type(under)
    attached = Attached(settings, under, first)
    half = [n for n, p in attached.trained_parameters().items() if p.dtype != torch.float32]
    if half:
        raise TowerError(
            f"{where}.adapter: {name!r} would train {half[0]} in half precision, where small steps are"
            f" rounded away; set {where}.precision=fp32 (or compute=fp32 for 8 and 4 bit)"
        )
    return attached


def _mend_adalora(model: nn.Module) -> None:
    """Starts AdaLoRA's factors as its penalty wants them, orthonormal; peft starts them small and random.

    On a base in half precision peft also leaves each module's rank counter to the optimizer. It is a count
    that is never saved, and its gradient would make autograd keep every module's fp32 output.
    """
    for name, parameter in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            nn.init.orthogonal_(parameter)
        elif ".ranknum." in name:
            parameter.requires_grad_(False)


def keep_compute_type(model: nn.Module) -> None:
    """Gives what an adapted module returns the type of what it was given.

    Some of peft's modules add their fp32 update without casting the sum back, and the next module then meets
    two types.
    """
    if not isinstance(model, PeftModel):
        return
    if not any(p.dtype == torch.bfloat16 for p in model.parameters()):
        return

    def cast(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output.to(inputs[0].dtype)

    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and "_keeps_compute_type" not in module.__dict__:
            module.register_forward_hook(cast)
            # Adapters that are added later come by here again.
            module.__dict__["_keeps_compute_type"] = True


def _unfreeze(model: nn.Module, first_layer: int) -> None:
    layers = find_layout(model).layers
    if layers is None:  # a type without a list of layers is trained as a whole
        model.requires_grad_(True)
        return
    for layer in model.get_submodule(layers)[first_layer:]:  # type: ignore[index]
        layer.requires_grad_(True)


def _linear_targets(
    model: nn.Module, settings: AdapterSettings, first: int, where: str
) -> tuple[list[str], bool]:
    targets = find_targets(model, first_layer=first, names=settings["target_modules"], where=where)
    transposed = is_transposed(model, targets, where=where)
    if transposed and settings.adapter in _PLAIN_LINEAR_ONLY:
        raise TowerError(
            f"{where}.adapter: {settings.adapter!r} does not work with the Conv1D modules of"
            f" {model.config.model_type};"  # type: ignore[union-attr]
            " use lora, or load in 8 or 4 bit, which turns them into linear ones; what is trained on these"
            " cannot be merged"
        )
    return targets, transposed


def _lora(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    targets, transposed = _linear_targets(model, settings, first, where)
    start = settings["lora_start"]
    if transposed and start == "olora":
        raise TowerError(
            f"{where}.lora_start: 'olora' does not work with the Conv1D modules of"
            f" {model.config.model_type};"  # type: ignore[union-attr]
            " use pissa"
        )
    if start in ("pissa", "olora", "loftq"):
        check_start_rank(model, targets, settings, where=where)
    # LoftQ's and EVA's starts need the full weights or inputs and are set afterwards, see `starts`.
    own_start: Any = start if start in ("pissa", "olora") else True
    return LoraConfig(
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        use_rslora=settings["rslora"],
        use_dora=settings["dora"],
        init_lora_weights=own_start,
        target_modules=targets,
        fan_in_fan_out=transposed,
        task_type=TASK,
    )


def _adalora(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    targets, transposed = _linear_targets(model, settings, first, where)
    return AdaLoraConfig(
        init_r=settings["init_rank"],
        target_r=settings["target_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        target_modules=targets,
        fan_in_fan_out=transposed,
        total_step=UNKNOWN_STEPS,
        task_type=TASK,
    )


def _ia3(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    scaled = find_targets(model, first_layer=first, names=None, where=where, described="key_value")
    outputs = find_targets(model, first_layer=first, names=None, where=where, described="outputs")
    family = find_layout(model).family
    assert family is not None  # find_targets has refused the others
    feedforward = [path for path in outputs if path.endswith(family.outputs[1])]
    feedforward = [path for path in feedforward if not path.endswith(family.outputs[0])]
    return IA3Config(
        target_modules=[*scaled, *feedforward],
        feedforward_modules=feedforward,
        fan_in_fan_out=is_transposed(model, [*scaled, *feedforward], where=where),
        task_type=TASK,
    )


def _vera(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    targets, transposed = _linear_targets(model, settings, first, where)
    return VeraConfig(
        r=settings["lora_rank"],
        vera_dropout=settings["lora_dropout"],
        target_modules=targets,
        fan_in_fan_out=transposed,
        task_type=TASK,
    )


def _loha(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    targets, _ = _linear_targets(model, settings, first, where)
    return LoHaConfig(
        r=settings["lora_rank"], alpha=settings["lora_alpha"], target_modules=targets, task_type=TASK
    )


def _oft(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    targets, _ = _linear_targets(model, settings, first, where)
    size = settings["oft_block_size"]
    widths = sorted({int(model.get_submodule(path).in_features) for path in targets})  # type: ignore[arg-type]
    bad = [width for width in widths if width % size]
    if bad:
        raise TowerError(
            f"{where}.oft_block_size: {size} does not divide the width {bad[0]} of the adapted modules;"
            f" give a divisor, e.g. {max(d for d in range(1, size + 1) if bad[0] % d == 0)}"
        )
    return OFTConfig(r=0, oft_block_size=size, target_modules=targets, task_type=TASK)


def _layernorm(model: nn.Module, settings: AdapterSettings, first: int, where: str) -> PeftConfig:
    return LNTuningConfig(target_modules=find_norms(model, first_layer=first), task_type=TASK)


_CONFIGS: dict[str, Callable[[nn.Module, AdapterSettings, int, str], PeftConfig]] = {
    "lora": _lora,
    "adalora": _adalora,
    "ia3": _ia3,
    "vera": _vera,
    "loha": _loha,
    "oft": _oft,
    "layernorm": _layernorm,
}

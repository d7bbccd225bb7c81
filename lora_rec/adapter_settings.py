"""Every adapter by one name, with the settings that it has and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lora_rec.errors import did_you_mean

AdapterName = Literal[
    "lora",
    "adalora",
    "prefix",
    "ia3",
    "bottleneck",
    "vera",
    "loha",
    "oft",
    "layernorm",
    "full",
    "none",
]
LoraStart = Literal["zero", "pissa", "olora", "eva", "loftq"]

_LORA_ALIKE: dict[str, Any] = {"lora_alpha": 16.0, "lora_dropout": 0.0, "target_modules": None}
ADAPTER_SETTINGS: dict[str, dict[str, Any]] = {
    # Hu et al. 2021, arXiv 2106.09685
    "lora": {
        "lora_rank": 8,
        **_LORA_ALIKE,
        "rslora": False,
        "dora": False,
        "lora_plus_ratio": 1.0,
        "lora_start": "zero",
    },
    # Zhang et al. 2023, arXiv 2303.10512
    "adalora": {
        "init_rank": 12,
        "target_rank": 8,
        **_LORA_ALIKE,
        "allocation_begin": 0.1,
        "allocation_end": 0.5,
        "allocation_interval": 1,
        "orthogonality_weight": 0.1,
    },
    # Li and Liang 2021, arXiv 2101.00190
    "prefix": {"n_virtual_tokens": 8},
    # Liu et al. 2022, arXiv 2205.05638
    "ia3": {},
    # Houlsby et al. 2019, arXiv 1902.00751
    "bottleneck": {"bottleneck_width": 32},
    # Kopiczko et al. 2023, arXiv 2310.11454
    "vera": {"lora_rank": 64, "lora_dropout": 0.0, "target_modules": None},
    # Hyeon-Woo et al. 2021, arXiv 2108.06098
    "loha": {"lora_rank": 8, "lora_alpha": 16.0, "target_modules": None},
    # Qiu et al. 2023, arXiv 2306.07280
    "oft": {"oft_block_size": 32, "target_modules": None},
    # Zhao et al. 2023, arXiv 2312.11420
    "layernorm": {},
    "full": {},
    "none": {},
}
SETTING_NAMES = tuple(dict.fromkeys(name for settings in ADAPTER_SETTINGS.values() for name in settings))
FULL_PRECISION_ONLY = ("full", "layernorm")
"""Adapters that train weights of the model itself: in half precision small steps would be rounded away."""


@dataclass(frozen=True)
class AdapterSettings:
    """One adapter with every setting that it has; made by `resolve`."""

    adapter: str
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def n_virtual(self) -> int:
        """Tokens that it puts before a text."""
        return int(self.values.get("n_virtual_tokens", 0))

    @classmethod
    def resolve(cls, adapter: str, given: Mapping[str, Any], *, precision: str) -> AdapterSettings:
        """Fills in defaults and checks ranges and combinations.

        Args:
            adapter: one of `ADAPTER_SETTINGS`.
            given: settings by name; None counts as not given.
            precision: of the tower.

        Raises:
            ValueError: one line per problem: an unknown adapter, a setting that it does not have, a value out
                of range, or a combination that cannot work.
        """
        if adapter not in ADAPTER_SETTINGS:
            hint = (
                did_you_mean(adapter, ADAPTER_SETTINGS) or f"choose one of {', '.join(get_args(AdapterName))}"
            )
            raise ValueError(f"adapter: {adapter!r} is not a choice; {hint}")
        chosen = {name: value for name, value in given.items() if value is not None}
        own = ADAPTER_SETTINGS[adapter]
        has = f"it has {', '.join(own)}" if own else "it has no settings"
        problems = [
            f"{name}: adapter {adapter!r} does not have this setting; leave it out ({has})"
            for name in chosen
            if name not in own
        ]
        values = own | {name: value for name, value in chosen.items() if name in own}
        problems += [text for ok, text in _checks(adapter, values, precision) if not ok]
        if problems:
            raise ValueError("\n".join(problems))
        return cls(adapter, values)


def _checks(adapter: str, values: Mapping[str, Any], precision: str) -> list[tuple[bool, str]]:
    checks: list[tuple[bool, str]] = []
    for name in ("lora_rank", "init_rank", "target_rank", "n_virtual_tokens", "bottleneck_width"):
        if name in values:
            checks.append((1 <= values[name] <= 1024, f"{name}: {values[name]} is not in 1..1024"))
    for name in ("lora_alpha", "lora_plus_ratio"):
        if name in values:
            checks.append((values[name] > 0, f"{name}: {values[name]} is not positive"))
    if "lora_dropout" in values:
        checks.append(
            (0 <= values["lora_dropout"] < 1, f"lora_dropout: {values['lora_dropout']} is not in [0, 1)")
        )
    if "oft_block_size" in values:
        checks.append(
            (values["oft_block_size"] >= 2, f"oft_block_size: {values['oft_block_size']} is below 2")
        )
    if adapter == "adalora":
        checks += _adalora_checks(values)
    if adapter == "lora":
        checks += _start_checks(values, precision)
    if adapter == "loha":
        checks.append(
            (precision != "4bit", "precision: '4bit' is not known to peft's LoHa; use 8bit, or adapter lora")
        )
    if adapter in FULL_PRECISION_ONLY:
        refused = ("bf16", "8bit", "4bit") if adapter == "full" else ("bf16",)
        checks.append(
            (
                precision not in refused,
                f"precision: {precision!r}, but adapter {adapter!r} trains the model's own weights; use fp32",
            )
        )
    return checks


def _adalora_checks(values: Mapping[str, Any]) -> list[tuple[bool, str]]:
    begin, end = values["allocation_begin"], values["allocation_end"]
    return [
        (
            values["target_rank"] < values["init_rank"],
            f"target_rank: {values['target_rank']} is not below init_rank {values['init_rank']},"
            " so there would be nothing to allocate; raise init_rank, or use adapter lora",
        ),
        (
            0 <= begin < end < 1,
            f"allocation_begin: {begin} and allocation_end {end} must rise within [0, 1)",
        ),
        (
            values["allocation_interval"] >= 1,
            f"allocation_interval: {values['allocation_interval']} is below 1",
        ),
        (
            values["orthogonality_weight"] >= 0,
            f"orthogonality_weight: {values['orthogonality_weight']} is negative",
        ),
    ]


def _start_checks(values: Mapping[str, Any], precision: str) -> list[tuple[bool, str]]:
    start = values["lora_start"]
    quantised = precision in ("8bit", "4bit")
    return [
        (
            start not in ("pissa", "olora") or not quantised,
            f"lora_start: {start!r} decomposes full weights, but precision is {precision!r};"
            " use loftq with 4bit, or fp32",
        ),
        (
            start != "loftq" or precision == "4bit",
            f"lora_start: 'loftq' makes up for the error of 4 bit, but precision is {precision!r};"
            " set precision=4bit, or use pissa",
        ),
        (
            precision != "8bit" or not values["dora"],
            "dora: reads the weights anew in every step, after which bitsandbytes has lost the scales of"
            " 8 bit; use 4bit or bf16",
        ),
        (
            start == "zero" or not values["dora"],
            f"dora: has its own start, which {start!r} would overwrite; use lora_start=zero",
        ),
    ]

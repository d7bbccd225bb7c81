"""The page's pictures, each drawn for a light and for a dark ground."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_rec.page.run import Run
from lora_rec.pipeline.pictures import draw_front, to_png
from lora_rec.pipeline.slices import Slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK = {
    name: "#14181d"
    for name in ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
} | {
    name: "#e4e7eb"
    for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
}
CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
)
MARKERS = "osD^vP*X"
LONGEST_NAME = 40
"""Letters of a part of the users beside its points; names of a hundred leave the points no room."""


@dataclass(frozen=True)
class Picture:
    """One picture as two PNG files."""

    name: str
    """Of its file, without the ending."""
    text: str
    """What it shows, for who cannot see it."""
    light: bytes
    dark: bytes


def make_picture(name: str, text: str, draw: Callable[[], bytes]) -> Picture:
    """Draws a picture twice."""
    with _colours({}):
        light = draw()
    with _colours(DARK):
        return Picture(name, text, light, draw())


@contextmanager
def _colours(settings: Mapping[Any, str]) -> Iterator[None]:
    """Sets matplotlib's colours for what is drawn inside, over its defaults; the caller's come back."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.family"] = ["DejaVu Sans", *_fonts_with_chinese()]
        matplotlib.rcParams.update({"text.parse_math": False, **settings})  # a category may be "$5 to $10"
        yield


def _fonts_with_chinese() -> list[str]:
    """Gives those of `CHINESE` that are installed; matplotlib brings none, and draws boxes without one."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [name for name in CHINESE if name in there]


def systems_picture(
    run: Run,
    rows: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
) -> Picture:
    """Draws relevance and variety of every system, with the intervals that there are."""
    metrics = {f"ndcg@{run.k}": "relevance", f"ild_factors@{run.k}": "variety"}
    there = [name for name in metrics if all(name in row for row in rows.values())]
    return make_picture(
        "systems",
        f"{' and '.join(there)} of {', '.join(run.label(name) for name in rows)}, with 95 % intervals",
        lambda: _draw_systems(
            {run.label(name).partition(":")[0]: rows[name] for name in rows},
            {run.label(name).partition(":")[0]: found for name, found in intervals.items()},
            {name: metrics[name] for name in there},
        ),
    )


def _draw_systems(
    rows: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    metrics: Mapping[str, str],
) -> bytes:
    figure = _figure(width=8, height=0.9 + 0.36 * len(rows))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    labels = list(rows)[::-1]
    for axes, (metric, meaning) in zip(panels, metrics.items(), strict=True):
        for place, label in enumerate(labels):
            value = rows[label][metric]
            low, high = intervals.get(label, {}).get(metric, (value, value))
            axes.plot([low, high], [place, place], color="C0", linewidth=2, alpha=0.6)
            axes.plot(value, place, "o", color="C0", markersize=6)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(-0.6, len(labels) - 0.4)
        axes.set_xlabel(f"{metric}: {meaning}")
        axes.grid(axis="x", alpha=0.25)
    return to_png(figure)


def front_picture(run: Run) -> Picture | None:
    """Draws the front of every strategy with the bundle's own setting; None without a front."""
    front = run.front
    if front is None:
        return None
    return make_picture(
        "diversity",
        f"ndcg@{front.k} against ild@{front.k} for every strategy of re-ranking, the bundle's own marked",
        lambda: draw_front(front, run.chosen),
    )


def slices_picture(run: Run, group: str, slices: Sequence[Slice], systems: Sequence[str]) -> Picture:
    """Draws the relevance of some systems in each part of one group."""
    return make_picture(
        f"slices_{group.split()[0]}",
        f"ndcg@{run.k} by {group}, of {', '.join(run.label(name) for name in systems)}",
        lambda: _draw_slices(slices, {name: run.short(name) for name in systems}, f"ndcg@{run.k}", group),
    )


def _draw_slices(slices: Sequence[Slice], labels: Mapping[str, str], metric: str, group: str) -> bytes:
    figure = _figure(width=8, height=1.4 + 0.3 * len(slices))
    axes = figure.subplots()
    parts = list(slices)[::-1]
    for number, (system, label) in enumerate(labels.items()):
        places = [place for place, part in enumerate(parts) if system in part.ndcg]
        values = [parts[place].ndcg[system] for place in places]
        axes.plot(values, places, MARKERS[number % len(MARKERS)], label=label, markersize=6, alpha=0.85)
    axes.set_yticks(range(len(parts)), [f"{_short(part.name)} ({part.n_users:,})" for part in parts])
    axes.set_ylim(-0.6, len(parts) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{metric} by {group} (users)")
    axes.grid(axis="both", alpha=0.25)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return to_png(figure)


def _short(name: str) -> str:
    """Leaves out the middle of a long name: of a path, both ends tell most."""
    return (
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 + 1 :]}"
    )


def _figure(*, width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")

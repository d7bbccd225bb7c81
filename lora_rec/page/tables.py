"""The page's tables, as text ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_rec.page.run import KEPT, SERVED, SYSTEMS, Run
from lora_rec.page.summary import verdict
from lora_rec.page.users import AGAINST
from lora_rec.pipeline.evidence import PairedTest
from lora_rec.pipeline.slices import Slice
from lora_rec.rank.tradeoff import Point
from lora_rec.schema import TOWERS

METRICS = ("ndcg", "recall", "mrr", "ild_factors", "ild", "coverage", "novelty")
FRONT_METRICS = ("ndcg", "ild", "ild_text", "coverage", "novelty")
RARE = ("ndcg", "recall", "coverage")
MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """One field of a table."""

    text: str
    below: str = ""
    """In small letters."""
    is_best: bool = False
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """Cells in rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


def systems_table(
    run: Run,
    rows: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
) -> Table:
    """Gives relevance and variety of every system; a metric that none has is left out."""
    names = [f"{name}@{run.k}" for name in METRICS] + [f"{name}@{run.k} (rare)" for name in RARE]
    names = [name for name in names if any(name in row for row in rows.values())]
    best = {name: max(row[name] for row in rows.values() if name in row) for name in names}
    lines = []
    for system, row in rows.items():
        kind = "computed again from the data" if system == SERVED else SYSTEMS.get(system, ("", ""))[1]
        cells = [Cell(run.label(system), kind, is_text=True)]
        for name in names:
            if name not in row:
                cells.append(Cell(MISSING))
                continue
            low_high = intervals.get(system, {}).get(name)
            below = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else ""
            cells.append(Cell(f"{row[name]:.4f}", below, is_best=row[name] == best[name]))
        lines.append(tuple(cells))
    return Table(("system", *names), tuple(lines))


def tests_tables(run: Run, tests: Sequence[PairedTest]) -> list[Table]:
    """Gives the paired tests of each metric, one a line."""
    tables = []
    for metric in dict.fromkeys(test.metric for test in tests):
        lines = [
            (
                Cell(f"{run.short(test.system)}, against {run.short(test.other)}", is_text=True),
                Cell(f"{test.mean:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}"),
                Cell("< 0.001" if test.p_value < 0.001 else f"{test.p_value:.3f}"),
                Cell(verdict(test), is_text=True),
            )
            for test in tests
            if test.metric == metric
        ]
        tables.append(Table((f"{metric}, user by user", "mean difference", "p", "verdict"), tuple(lines)))
    return tables


def front_table(run: Run) -> Table | None:
    """Gives, for every strategy, the most diverse setting that keeps `KEPT` of the relevance."""
    front = run.front
    if front is None:
        return None
    found = {line: front.best_of_line(line, keep=KEPT) for line in front.lines()}
    points = [front.plain, *(point for point in found.values() if point is not None)]
    if run.chosen is not None and run.chosen not in points:
        points.append(run.chosen)
    names = [name for name in FRONT_METRICS if name in front.plain.values]
    best = {name: max(point.values[name] for point in points) for name in names}
    lines = []
    for point in points:
        own = "  (the bundle's own)" if point == run.chosen else ""
        cells = [Cell(_setting(point) + own, is_text=True), Cell(f"{front.kept(point):.1%}")]
        values = [(point.values[name], best[name]) for name in names]
        lines.append((*cells, *(Cell(f"{value:.4f}", is_best=value == most) for value, most in values)))
    lost = [line for line, point in found.items() if point is None]
    caption = (
        f"By relevance alone, and of each strategy the most diverse setting that keeps {KEPT:.0%} of ndcg"
    )
    if lost:
        caption += f"; {', '.join(lost)}: none does"
    return Table(("setting", "ndcg kept", *names), tuple(lines), caption)


def _setting(point: Point) -> str:
    return point.line if point.diversity == 0 else f"{point.line}, {point.diversity:.3g}"


def slices_table(run: Run, slices: Sequence[Slice], systems: Sequence[str], system: str) -> Table:
    """Gives each part's `ndcg` of some systems, and the difference of one from the baseline."""
    lines = []
    for part in slices:
        best = max(part.ndcg[name] for name in systems if name in part.ndcg)
        cells = [Cell(part.name, is_text=True), Cell(f"{part.n_users:,}")]
        for name in systems:
            value = part.ndcg.get(name)
            cells.append(Cell(MISSING) if value is None else Cell(f"{value:.4f}", is_best=0 < value == best))
        found = part.difference
        cells.append(
            Cell(MISSING)
            if found is None
            else Cell(f"{found.mean:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}")
        )
        lines.append(tuple(cells))
    names = [run.short(name) for name in (*systems, system, AGAINST)]
    return Table(("part", "users", *names[:-2], f"{names[-2]}, less {names[-1]}"), tuple(lines))


def towers_table(run: Run) -> Table:
    """Gives what each tower is and how much of it was learned."""
    parameters = run.metrics.get("parameters", {})
    lines = []
    for name in TOWERS:
        tower, part = getattr(run.manifest, name), parameters.get(name)
        layers = "every layer" if tower.trained_layers is None else f"the last {tower.trained_layers} layers"
        learned = f"{part['trained']:,}" if part else MISSING
        share = f"{part['trained'] / part['total']:.2%} of {part['total']:,}" if part else ""
        lines.append(
            (
                Cell(name.replace("_", " "), is_text=True),
                Cell(tower.base_model_id, tower.revision or "", is_text=True),
                Cell(f"{tower.adapter}, on {layers}", is_text=True),
                Cell(_settings(tower.adapter_settings), is_text=True),
                Cell(f"{tower.precision}, {tower.pooling} pooling", is_text=True),
                Cell(learned, share),
            )
        )
    header = ("tower", "frozen model", "adapter", "settings", "precision", "parameters learned")
    return Table(header, tuple(lines))


def _settings(settings: Mapping[str, Any]) -> str:
    """Gives an adapter's settings that say something."""
    said = {name: value for name, value in settings.items() if value not in (None, False, [], ())}
    return ", ".join(f"{name} {value}" for name, value in said.items() if name != "adapter") or MISSING


def epochs_table(run: Run) -> Table | None:
    """Gives what each epoch did; None where nothing was trained."""
    training = run.metrics.get("training", {})
    if not training.get("epochs"):
        return None
    best = training["best_epoch"]
    start = Cell(f"{training['start_validation']:.4f}", is_best=best == 0)
    lines = [(Cell("before", is_text=True), Cell(MISSING), start, Cell(MISSING))]
    for row in training["epochs"]:
        lines.append(
            (
                Cell(str(row["epoch"]), is_text=True),
                Cell(f"{row['loss']:.4f}"),
                Cell(f"{row['validation']:.4f}", is_best=row["epoch"] == best),
                Cell(f"{row['seconds']:.0f} s"),
            )
        )
    caption = "Adapters: validation is ndcg@10 of the towers alone; what was best was kept (blue)"
    return Table(("epoch", "loss", "validation", "time"), tuple(lines), caption)

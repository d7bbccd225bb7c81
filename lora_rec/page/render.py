"""Puts the page together: no script, no request, and every text from the data escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_rec.page.pictures import (
    Picture,
    front_picture,
    slices_picture,
    systems_picture,
)
from lora_rec.page.run import SERVED, SYSTEMS, Run
from lora_rec.page.summary import summarise
from lora_rec.page.tables import (
    Table,
    epochs_table,
    front_table,
    slices_table,
    systems_table,
    tests_tables,
    towers_table,
)
from lora_rec.page.users import AGAINST, RANDOM, Again, Example
from lora_rec.pipeline.slices import CATEGORY, LEAST_USERS, Slice

if TYPE_CHECKING:
    from lora_rec.export.explain import TextExplanation, Word

SECTIONS = {
    "summary": "In short",
    "systems": "Before and after",
    "front": "Variety",
    "slices": "For whom",
    "users": "Users",
    "training": "Training",
}


@dataclass(frozen=True)
class Page:
    """A page and its pictures."""

    html: str
    pictures: tuple[Picture, ...]
    """Those that hold no user."""


def render_page(run: Run, again: Again | None = None, users: Sequence[Example] | None = None) -> Page:
    """Writes the page.

    Args:
        run: of the bundle.
        again: its test users ranked for again, if the data was given.
        users: some of them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    rows, intervals = dict(run.rows), dict(run.intervals)
    if again is not None:
        rows[SERVED], intervals[SERVED] = again.rows[SERVED], again.intervals[SERVED]
    systems = systems_picture(run, rows, intervals)
    slices, n_slices = _slices(run, again)
    front = front_picture(run)
    tests = [*run.tests, *(() if again is None else again.tests)]
    environment = Environment(
        loader=PackageLoader("lora_rec.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"png": _address, "weight": _weight}
    html = environment.get_template("page.html").render(
        run=run,
        sections=list(SECTIONS.items()),
        summary=summarise(run, again),
        missing=_missing(run, again),
        systems=systems_table(run, rows, intervals),
        systems_picture=systems,
        tests=tests_tables(run, tests),
        front=front_table(run),
        front_picture=front,
        chosen=_chosen(run),
        slices=slices,
        n_slices=n_slices,
        least_users=LEAST_USERS,
        users=users,
        n_random=sum(user.kind == RANDOM for user in users or ()),
        against=SYSTEMS[AGAINST][0],
        towers=towers_table(run),
        epochs=epochs_table(run),
        training=_training(run),
        rank_pictures=[
            Picture(f"ranks_{name}", f"ranks kept in the {name.replace('_', ' ')}", png, png)
            for name, png in run.pictures.items()
        ],
    )
    drawn = [systems, *([front] if front else []), *(picture for _, picture, _ in slices)]
    return Page(html, tuple(drawn))


def _slices(run: Run, again: Again | None) -> tuple[list[tuple[str, Picture, Table]], int]:
    """Gives each group with its picture and table, and how many parts there are."""
    parts, system = list(run.slices), "ranking_head"
    if again is not None:
        of_run = {(part.group, part.name): part.ndcg for part in run.slices}
        system = SERVED
        parts = [
            Slice(
                part.group,
                part.name,
                part.n_users,
                of_run.get((part.group, part.name), {}) | part.ndcg,
                part.difference,
                part.p_value,
            )
            for part in again.slices
        ]
    result = []
    for group in dict.fromkeys(part.group for part in parts):
        own = [part for part in parts if part.group == group]
        systems = [name for name in (*SYSTEMS, SERVED) if any(name in part.ndcg for part in own)]
        hidden = {"popularity", "item_cosine", "ranking_head_diverse"}
        if again is not None and run.manifest.ranking.diversity == 0:
            hidden.add("ranking_head")  # the bundle serves just that
        few = [name for name in systems if name not in hidden]
        picture = slices_picture(run, group, own, few)
        result.append((group, picture, slices_table(run, own, systems, system)))
    return result, len(parts)


def _chosen(run: Run) -> str:
    """Says what the bundle's own setting costs."""
    front, chosen = run.front, run.chosen
    if front is None or chosen is None:
        return ""
    if chosen == front.plain:
        best = front.most_diverse(keep=0.95)
        return (
            f"They give up nothing; {best.line} with diversity {best.diversity:.3g} would keep"
            f" {front.kept(best):.1%} of ndcg@{front.k} and take ild@{front.k} from"
            f" {front.plain.values['ild']:.4f} to {best.values['ild']:.4f}."
            if best != front.plain
            else "They give up nothing, and no measured setting has more variety for 5 % of the relevance."
        )
    return (
        f"They keep {front.kept(chosen):.1%} of ndcg@{front.k} and take ild@{front.k} from"
        f" {front.plain.values['ild']:.4f} to {chosen.values['ild']:.4f}."
    )


def _training(run: Run) -> list[str]:
    """Says what the run took and what it chose."""
    lines = []
    chosen = run.metrics.get("chosen", {})
    if "ease" in chosen:
        ease = chosen["ease"]
        lines.append(
            f"EASE is the strong form: recency-weighted, its numbers chosen on validation users"
            f" (regularisation {ease['regularisation']:g}, decay {ease['decay']:g})."
            + (
                f" Of its matrix it has the {rank:,} leading factors alone."
                if (rank := ease.get("rank"))
                else ""
            )
        )
    cost = run.metrics.get("cost")
    if cost:
        stages = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in cost["seconds"].items())
        lines.append(
            f"Wall time {sum(cost['seconds'].values()):,.0f} s: {stages}. Peak memory"
            f" {cost['peak_memory_gb']:.2f} GB."
        )
    if run.data:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in run.data["dropped"].items())
        lines.append(f"Split: {run.data['split']}" + (f"; left out: {dropped}." if dropped else "."))
    return lines


def _missing(run: Run, again: Again | None) -> list[str]:
    """Says what the page cannot show, and why."""
    lines = []
    if not run.tests:
        lines.append(
            "The bundle was written by an older version: intervals, paired tests and parts of the users are"
            " missing. Run its recipe again."
        )
    slices = run.slices if again is None else again.slices
    if slices and not any(part.group == CATEGORY for part in slices):
        lines.append(
            "There are no slices by category: the recipe names no ranking.category_field, the bundle was"
            f" pushed without item texts, or fewer than two categories have {LEAST_USERS} users."
        )
    return lines


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _weight(word: Word, text: TextExplanation) -> str:
    """Gives how strongly a word is coloured, 0 to 1."""
    most = max((abs(other.contribution) for other in text.words), default=0.0)
    return f"{abs(word.contribution) / most:.2f}" if most > 0 else "0"

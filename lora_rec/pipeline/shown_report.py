"""What a run on shown lists prints of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lora_rec.metrics import format_table
from lora_rec.pipeline.judge import JUDGED_K
from lora_rec.pipeline.report import Stages, print_costs, say
from lora_rec.pipeline.shown import ShownData
from lora_rec.rank.ranker import Recommender

SHOWN = 10
LAST = 5


def print_shown_report(folder: Path, metrics: dict[str, Any], stages: Stages, *, data: ShownData) -> None:
    """Prints the table, what the run cost, and one list in its order, read back from the bundle."""
    columns = ["auc", f"ndcg@{JUDGED_K}"]
    systems = {name: row for name, row in metrics.items() if columns[0] in row}
    say(f"\nTest: {len(data.split.test):,} lists as they were shown; means within a list")
    say(format_table(systems, columns=columns))
    print_costs(folder, metrics, stages)
    rec = Recommender.load(folder)
    shown = data.split.test
    # A list of median length, from a user with a history: as good an example as any.
    usable = np.flatnonzero((shown.histories.counts > 0) & (shown.candidates.counts > 1))
    if not len(usable):
        return
    row = int(usable[np.argsort(shown.candidates.counts[usable], kind="stable")[len(usable) // 2]])
    history, offered = (
        [rec.item_ids[i] for i in lists[row]] for lists in (shown.histories, shown.candidates)
    )
    start = shown.candidates.offsets[row]
    clicked = {item for item, click in zip(offered, shown.clicks[start:], strict=False) if click}
    places = rec.find_items(history[-LAST:])
    say(f"\nuser {data.dataset.user_ids[shown.users[row]]} read, newest last: ...")
    say("\n".join(f"      {rec.titles[place]}" for place in places))
    ordered = rec.rank_shown(history, shown=list(dict.fromkeys(offered)))
    say(f"and was shown {len(ordered)} items; ordered, * was clicked:")
    for item in ordered[:SHOWN]:
        mark = "*" if item.item_id in clicked else " "
        say(f"{item.rank:>4}.{mark} {item.title}  [{item.item_id}, {item.score:.3f}]")
    rest = [str(item.rank) for item in ordered[SHOWN:] if item.item_id in clicked]
    if rest:
        say(f"clicked further down: {', '.join(rest)}")

"""The README's tables of speed and of runs that were killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
_Cells = dict[tuple[str, str, str], dict[str, Any]]


def read_cells(benchmark: str) -> tuple[str, _Cells]:
    """Gives the line that says what was run where, and the rows by case, system and metric."""
    header, *rows = json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))
    cells = {(row["case"], row["system"], row["metric"]): row for row in rows}
    return f"`{header['command']}`, {header['date']}, {header['machine']}.", cells


def training_table() -> str:
    """Gives a table for each training case: rate, ratios, memory and quality."""
    source, cells = read_cells("speed")
    columns = {
        "interactions_per_s": ("interactions a second", "{:.0f}"),
        "ratio_to_sentence_transformers": ("over `sentence_transformers`", "{:.1f}"),
        "ratio_to_pad128": ("over `pad128`", "{:.1f}"),
        "peak_memory": ("peak memory, GB", "{:.2f}"),
        "ndcg@10": ("`ndcg@10`", "{:.4f}"),
        "frozen_ndcg@10": ("before training", "{:.4f}"),
        "ndcg_ratio": ("`ndcg@10` over `sentence_transformers`", "{:.2f}"),
    }
    return "\n\n".join([*_tables(cells, "train", columns), source])


def encoding_table() -> str:
    """Gives the table of encoding a catalogue."""
    _, cells = read_cells("speed")
    columns = {
        "texts_per_s": ("texts a second", "{:.0f}"),
        "ratio_to_sentence_transformers": ("over `sentence_transformers`", "{:.2f}"),
        "lowest_cosine": ("lowest cosine to it", "{:.6f}"),
        "peak_memory": ("peak memory, GB", "{:.2f}"),
    }
    return "\n\n".join(_tables(cells, "encode", columns))


def search_table() -> str:
    """Gives a table for each size of the catalogue: time of one search, alone and re-ranked, and recall."""
    source, cells = read_cells("search_speed")
    columns = {
        "ms_exact": ("exact, ms", "{:.1f}"),
        "ms_exact_to_20": ("and re-ranked to 20", "{:.1f}"),
        "ms_approximate": ("approximate, ms", "{:.2f}"),
        "ms_approximate_to_20": ("and re-ranked to 20", "{:.2f}"),
        "recall": ("recall", "{:.3f}"),
        "s_to_make": ("made in, s", "{:.0f}"),
    }
    return "\n\n".join([*_tables(cells, "search", columns), source])


def _tables(cells: _Cells, prefix: str, columns: dict[str, tuple[str, str]]) -> list[str]:
    tables = []
    for case in dict.fromkeys(case for case, _, _ in cells if case.startswith(prefix)):
        heads = [head for head, _ in columns.values()]
        lines = [f"| {case} | {' | '.join(heads)} |", "| :-- |" + " --: |" * len(columns)]
        for system in dict.fromkeys(name for found, name, _ in cells if found == case):
            found = [(cells.get((case, system, metric)), form) for metric, (_, form) in columns.items()]
            values = [form.format(row["value"]) if row else "" for row, form in found]
            lines.append(f"| `{system}` | {' | '.join(values)} |")
        tables.append("\n".join(lines))
    return tables


def kills_table() -> str:
    """Gives a row per adapter: kills, and what became of the runs."""
    source, cells = read_cells("kills")
    heads = {
        "kills": "kills",
        "in_saves": "in the middle of a save",
        "resumed": "resumed from a checkpoint",
        "runs": "runs that came to their end",
        "equal": "with the bits of a run that nobody killed",
    }
    lines = [f"| adapter | {' | '.join(heads.values())} |", "| :-- |" + " --: |" * len(heads)]
    for case in dict.fromkeys(case for case, _, _ in cells):
        values = [str(round(cells[case, "lora_rec", metric]["value"])) for metric in heads]
        lines.append(f"| `{case}` | {' | '.join(values)} |")
    return "\n".join([*lines, "", source])


SCALE_ROWS = {
    "generate": ("us_per_interaction", "interaction", "µs"),
    "store": ("us_per_interaction", "interaction", "µs"),
    "tokenise": ("us_per_item", "item", "µs"),
    "encode": ("us_per_item", "item", "µs"),
    "index": ("us_per_item", "item", "µs"),
    "recommend": ("ms_per_user", "user", "ms"),
    "recommend_exact": ("ns_per_user_and_item", "user and item", "ns"),
}
"""Stage to its metric, what that counts and its unit."""


def scale_table() -> str:
    """Gives a row per stage: time of one item, interaction or user, and memory, at every size."""
    source, cells = read_cells("scale")
    sizes = [size for size in ("10k", "100k", "1m") if any(case == size for case, _, _ in cells)]
    heads = ["time of one", *sizes, f"{sizes[-1]} over {sizes[0]}", *(f"{size}, MB" for size in sizes)]
    lines = [f"| stage | {' | '.join(heads)} |", "| :-- | :-- |" + " --: |" * (len(heads) - 1)]
    for stage, (metric, what, unit) in SCALE_ROWS.items():
        times = [cells[size, stage, metric]["value"] for size in sizes]
        memory = [f"{cells[size, stage, 'own_mb']['value']:.0f}" for size in sizes]
        shown = [f"{value:.2f}" for value in (*times, times[-1] / times[0])]
        lines.append(f"| `{stage}` | {what}, {unit} | {' | '.join([*shown, *memory])} |")
    return "\n".join([*lines, "", source])

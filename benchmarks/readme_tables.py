"""Puts the benchmark results into README.md, between its markers; `--check` only says whether they agree.

python benchmarks/readme_tables.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = ("recall@10", "ndcg@10", "ild@10", "coverage@10", "recall@10 (rare)", "ndcg@10 (rare)")


def quality_table() -> str:
    """Gives the table of the three seeds: the mean, and in brackets the lowest and the highest."""
    header, *rows = json.loads((RESULTS / "quickstart_quality.json").read_text(encoding="utf-8"))
    cells = {(row["system"], row["metric"]): row for row in rows}
    lines = ["| system | " + " | ".join(COLUMNS) + " |", "| :-- |" + " --: |" * len(COLUMNS)]
    for system in dict.fromkeys(row["system"] for row in rows):
        lines.append(
            f"| `{system}` | " + " | ".join(_cell(cells[system, column]) for column in COLUMNS) + " |"
        )
    gains = [
        f"`{system}` over `ease`, mean of the seeds: {row['value']:+.4f} `ndcg@10`"
        f" (95 % over users {row['low']:+.4f} to {row['high']:+.4f})."
        for (system, metric), row in cells.items()
        if metric == "ndcg@10 over ease"
    ]
    seeds = ", ".join(map(str, header["seeds"]))
    source = f"`{header['command']}`, {header['date']}, {header['machine']}, seeds {seeds}."
    return "\n".join([*lines, "", "\n\n".join([*gains, source])])


def _cell(row: dict[str, float]) -> str:
    value = f"{row['value']:.4f}"
    return value if row["low"] == row["high"] else f"{value} ({row['low']:.4f}–{row['high']:.4f})"


def fill(text: str) -> str:
    """Gives the README with its tables made anew."""
    block = "<!-- quickstart_quality -->\n" + quality_table() + "\n<!-- /quickstart_quality -->"
    pattern = r"<!-- quickstart_quality -->.*?<!-- /quickstart_quality -->"
    if not re.search(pattern, text, flags=re.S):
        sys.exit(
            "README.md: the markers <!-- quickstart_quality --> are missing; put them where the table belongs"
        )
    return re.sub(pattern, lambda _: block, text, flags=re.S)


def main() -> int:
    """Writes or checks; gives 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if the README differs"
    )
    arguments = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    filled = fill(text)
    if arguments.check:
        print("README.md agrees" if filled == text else "README.md differs; run: make readme")
        return int(filled != text)
    README.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Puts the benchmark results into README.md, between its markers; `--check` only says whether they agree.

python benchmarks/readme_tables.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from readme_speed import encoding_table, kills_table, scale_table, search_table, training_table
from readme_tasks import few_labels_table, tasks_table

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


def sets_table() -> str:
    """Gives systems x published sets, cold sets and friends, each with its interval over users."""
    header, *rows = json.loads((RESULTS / "quality.json").read_text(encoding="utf-8"))
    cells = {(row["case"], row["system"], row["metric"]): row for row in rows}
    cases = list(dict.fromkeys(row["case"] for row in rows))
    plain = [
        (case, "auc" if case == "mind" else "ndcg@10")
        for case in cases
        if not case.endswith(("-cold", "-friends"))
    ]
    friends = [(case, metric) for case in cases if case.endswith("-friends") for metric in ("auc", "ndcg@10")]
    cold = [case for case in cases if case.endswith("-cold")]
    lines = _grid(cells, plain)
    for key, name in (("known", "*to beat*"), ("published", "*best published*"), ("goal", "*goal*")):
        found = [header["references"].get(case, {}).get(key) for case, _ in plain]
        lines.append(f"| {name} | " + " | ".join("–" if v is None else f"{v:.4f}" for v in found) + " |")
    sources = [
        f"{case}: {name} {known[key]:.4f} is {known[key + '_source']}."
        for case, known in header["references"].items()
        for key, name in (("known", "to beat"), ("published", "published"))
        if key in known
    ]
    missing: dict[tuple[str, str], list[str]] = {}
    for case, systems in header["left_out"].items():
        for system, reason in systems.items():
            missing.setdefault((reason, system), []).append(case)
    alike: dict[tuple[str, str], list[str]] = {}
    for (reason, system), where in missing.items():
        if not reason.startswith(("orders ", "is for ")):  # another kind of set
            alike.setdefault((reason, ", ".join(where)), []).append(f"`{system}`")
    left_out = [f"- {', '.join(who)} on {where}: {reason}" for (reason, where), who in alike.items()]
    seeds = ", ".join(map(str, header["seeds"]))
    fewer = [
        f"`{system}` on {case} (seed {', '.join(map(str, found))})"
        for case, systems in header["fewer_seeds"].items()
        for system, found in systems.items()
    ]
    source = (
        f"`{header['command']}`, {header['date']}, {header['machine']}, seeds {seeds} where a system draws "
        f"numbers, {header['trials']} validation trials at most for every system."
        + (f" Fewer seeds: {'; '.join(fewer)}." if fewer else "")
    )
    parts = ["\n".join(lines)]
    parts += ["\n".join(_cold_lines(cells, cold)), "\n".join(_grid(cells, friends))]
    parts.append(" ".join(sources))
    parts += ["Left out:\n\n" + "\n".join(left_out) if left_out else "", source]
    return "\n\n".join(part for part in parts if part)


def _grid(cells: dict[tuple[str, str, str], dict[str, float]], columns: list[tuple[str, str]]) -> list[str]:
    """Gives the lines of a table of systems x (case, metric)."""
    systems = dict.fromkeys(s for case, s, metric in cells if (case, metric) in columns)
    heads = [f"{case} `{metric}`" for case, metric in columns]
    lines = ["| system | " + " | ".join(heads) + " |", "| :-- |" + " --: |" * len(heads)]
    for system in systems:
        found = [cells.get((case, system, f"{metric} over users")) for case, metric in columns]
        lines.append(f"| `{system}` | " + " | ".join(_cell(row) if row else "–" for row in found) + " |")
    return lines


def _cold_lines(cells: dict[tuple[str, str, str], dict[str, float]], cases: list[str]) -> list[str]:
    """Gives the lines of a table of (set, system) x what is ranked, each over the whitened texts, too."""
    lines = [
        "| set | system | among new items | times texts | among all | times texts | known items |",
        "| :-- | :-- |" + " --: |" * 5,
    ]
    for case in cases:
        for system in dict.fromkeys(s for of, s, _ in cells if of == case):
            new, among_all = (
                cells[case, system, f"ndcg@10{which} over users"] for which in ("", " among all")
            )
            known = cells.get((case, system, "ndcg@10 of known items over users"))
            values = [_cell(new), _over_texts(cells, case, new, "")]
            values += [_cell(among_all), _over_texts(cells, case, among_all, " among all")]
            values.append(_cell(known) if known else "–")  # an earlier run did not rank them
            lines.append(f"| {case} | `{system}` | " + " | ".join(values) + " |")
    return lines


def _over_texts(
    cells: dict[tuple[str, str, str], dict[str, float]], case: str, row: dict[str, float], which: str
) -> str:
    return f"{row['value'] / cells[case, 'minilm_whitened', f'ndcg@10{which} over users']['value']:.2f}"


def adapters_table() -> str:
    """Gives a row per adapter and precision, and the picture beside them."""
    header, *rows = json.loads((RESULTS / "adapters.json").read_text(encoding="utf-8"))
    cells = {(row["case"], row["metric"]): row for row in rows}
    names = [name for name, _ in ADAPTER_COLUMNS]
    lines = ["| case | " + " | ".join(names) + " |", "| :-- |" + " --: |" * len(names)]
    for case in dict.fromkeys(row["case"] for row in rows):
        values = [show(cells[case, name]) if (case, name) in cells else "" for name, show in ADAPTER_COLUMNS]
        lines.append(f"| `{case}` | " + " | ".join(values) + " |")
    seeds = ", ".join(map(str, header["seeds"]))
    source = f"`{header['command']}`, {header['date']}, {header['machine']}, seeds {seeds}."
    picture = "![ndcg@10 of each adapter, and what it trains](benchmarks/results/adapters.png)"
    return "\n".join([*lines, "", picture, "", source])


def _share(row: dict[str, float]) -> str:
    spread = f" ({row['low']:.3f}–{row['high']:.3f})" if row["n"] > 1 else ""
    return f"{row['value']:.3f}{spread}"


ADAPTER_COLUMNS: tuple[tuple[str, Callable[[dict[str, float]], str]], ...] = (
    ("ndcg@10", lambda row: _cell(row)),
    ("share_of_full", _share),
    ("share_of_bf16_lora", _share),
    ("trainable_share", lambda row: f"{row['value']:.3%}"),
    ("adapter_mb", lambda row: f"{row['value']:.2f}"),
    ("peak_gb", lambda row: f"{row['value']:.2f}"),
    ("planned_over_measured_memory", lambda row: f"{row['value']:.2f}"),
    ("step_time_over_lora", lambda row: f"{row['value']:.2f}"),
)


DIVERSITY_ROWS = (
    ("most `ild@10` at 95 %", "most_ild_at_95"),
    ("most coverage at 95 %", "most_coverage_at_95"),
    ("better in both", "best_ndcg"),
    ("most `ild@10`, re-ranking alone", "most_ild_at_95 by re-ranking"),
    ("most coverage, re-ranking alone", "most_coverage_at_95 by re-ranking"),
    ("training alone", "inverse_propensity"),
)
DIVERSITY_COLUMNS = ("ndcg_kept", "ild_gain", "ild_text_gain", "coverage_gain", "novelty_gain")


def diversity_table() -> str:
    """Gives a row per set and setting, with its interval over users, and the picture of the fronts."""
    header, *rows = json.loads((RESULTS / "diversity.json").read_text(encoding="utf-8"))
    cells = {(row["case"], row["system"], row["metric"]): row for row in rows}
    names = ["`ndcg@10` kept", "`ild@10`", "`ild@10` by text", "coverage", "novelty"]
    lines = [
        "| set | chosen for | setting | " + " | ".join(names) + " |",
        "| :-- | :-- | :-- |" + " --: |" * 5,
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        for name, system in DIVERSITY_ROWS:
            found = [cells[case, system, f"{metric} over users"] for metric in DIVERSITY_COLUMNS]
            values = [_share(found[0]), *(_gain(row) for row in found[1:])]
            setting = ", ".join(dict.fromkeys(f"`{seed[system]}`" for seed in header["chosen"][case]))
            lines.append(f"| {case} | {name} | {setting} | " + " | ".join(values) + " |")
    seeds = ", ".join(map(str, header["seeds"]))
    head = "the linear part alone" if header["linear"] else "the whole head"
    source = (
        f"`{header['command']}`, {header['date']}, {header['machine']}, seeds {seeds}, {head},"
        f" {header['candidates']} candidates."
    )
    picture = "![ndcg@10 against diversity on validation users](benchmarks/results/diversity.png)"
    return "\n".join([*lines, "", picture, "", source])


def _gain(row: dict[str, float]) -> str:
    return f"{row['value']:+.0%} ({row['low']:+.0%} to {row['high']:+.0%})"


def draw_adapters(file: Path) -> None:
    """Draws a line per case, by quality, with its share of trained parameters and the range of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    _, *rows = json.loads((RESULTS / "adapters.json").read_text(encoding="utf-8"))
    cells = {(row["case"], row["metric"]): row for row in rows}
    cases = sorted(dict.fromkeys(row["case"] for row in rows), key=lambda c: cells[c, "ndcg@10"]["value"])
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.3 * len(cases)), layout="constrained")
    for place, case in enumerate(cases):
        quality = cells[case, "ndcg@10"]
        bars = [[quality["value"] - quality["low"]], [quality["high"] - quality["value"]]]
        controls = {"none": "0.4", "full": "tab:red"}
        color = controls.get(case, "tab:green" if "bit" in case else "tab:blue")
        axes.errorbar(quality["value"], place, xerr=bars, fmt="o", color=color, alpha=0.8)
        if case in controls:
            axes.axvline(quality["value"], color=color, linestyle="--", linewidth=0.8)
    shares = [f"{case}  ({cells[case, 'trainable_share']['value']:.3%})" for case in cases]
    axes.set_yticks(range(len(cases)), shares)
    axes.set_xlabel("ndcg@10 of the trained towers; bars: lowest to highest seed, a point without: one seed")
    axes.set_title("adapter (share of the parameters that are trained)", fontsize=10)
    figure.savefig(file, dpi=110, metadata={"Software": ""})
    plt.close(figure)


TABLES = {
    "quickstart_quality": quality_table,
    "quality": sets_table,
    "diversity": diversity_table,
    "adapters": adapters_table,
    "kills": kills_table,
    "speed_train": training_table,
    "speed_encode": encoding_table,
    "search_speed": search_table,
    "scale": scale_table,
    "tasks": tasks_table,
    "few_labels": few_labels_table,
}


def fill(text: str) -> str:
    """Gives the README with its tables made anew."""
    for name, make in TABLES.items():
        block = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        if not re.search(pattern, text, flags=re.S):
            sys.exit(f"README.md: the markers <!-- {name} --> are missing; put them where the table belongs")
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.S)  # type: ignore[misc]
    return text


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
    draw_adapters(RESULTS / "adapters.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What re-ranking buys on four published sets: diversity and coverage at 95 % of the plain list's `ndcg@10`.

The head is `lora_rec_head_frozen` of the quality benchmark (quality_ours.py); it is trained a second time
with targets counting less the more popular they are (`head.inverse_propensity`). On validation users, with
the heads as they were before they saw their items, every strategy, space and strength is measured
(pipeline/tradeoff.py). Three settings are chosen there and measured on the test users once: the most `ild`
and the most coverage at 95 % of the plain list's `ndcg@10`, and the most `ndcg@10` among those that are
better than the plain list in both. The plain list is that of the first head.

These settings are the systems `most_ild_at_95`, `most_coverage_at_95` and `best_ndcg`; their rows are shares
of the plain list's values, which are rows, too. `... by re-ranking` is the best of the first head alone, and
`inverse_propensity` the second head's relevance order: what the list does, and what the training does. The
aims stand again as `lora_rec`: `ild_gain_at_95` with `ndcg_kept`, `coverage_gain_at_95` with
`ndcg_kept_at_coverage`, `ndcg_gain_at_best` with `ild_gain_at_best`.
`low` and `high` are the lowest and the highest seed; in the rows `... over users` a 95 % bootstrap interval
over test users of the mean over seeds. (Of coverage it is no symmetric one: users drawn anew repeat lists.)

A seed draws the halves of the users, of which one is a re-ranker's space and the other the ruler, and the
numbers of the sequence part. Finished pieces are kept in runs/diversity, so a call that was stopped goes on
where it was; rows of sets that a call leaves out stay if their settings were the same.

python benchmarks/diversity.py --data-root ../shared/data
python benchmarks/diversity.py --data-root ../shared/data --sets movielens-100k --linear
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_ours import choose_linear_part
from quality_sets import RANKED, RankingSet, prepare_set
from rows import RESULTS, header_of, merge_rows, row, write_rows

from lora_rec.data import Split
from lora_rec.metrics import coverage_at_k, ild_at_k, ndcg_at_k, novelty_at_k
from lora_rec.pipeline.head import fit_on_texts
from lora_rec.pipeline.spaces import Rulers, make_spaces
from lora_rec.pipeline.tradeoff import lists_by, measure_front
from lora_rec.rank.linear import centre
from lora_rec.rank.tradeoff import PLAIN, Front, Point
from lora_rec.recipe import HeadSection

ROOT = Path(__file__).resolve().parents[1]
NAME = "diversity"
K, N_CANDIDATES, KEEP = 10, 100, 0.95
LEAST_GAIN = 1.01
"""Of `ild`, which a setting that is better in both has at least."""
INVERSE_PROPENSITY = 0.5
VERSION = 3
"""Raise it when anything that a piece holds changes: older pieces are then not read."""
MEASURES = ("ndcg", "ild", "ild_text", "novelty")
SETTINGS = (
    "plain",
    "most_ild_at_95",
    "most_coverage_at_95",
    "best_ndcg",
    "most_ild_at_95 by re-ranking",
    "most_coverage_at_95 by re-ranking",
    "inverse_propensity",
)
N_RESAMPLES = 500


Setting = tuple[float, Point]
"""The inverse propensity of the head, and how its lists are re-ranked."""


def choose(fronts: dict[float, Front]) -> dict[str, Setting]:
    """Chooses on validation alone; plain where nothing is better in both.

    Args:
        fronts: of the head of each inverse propensity, the plain one, 0, first.
    """
    first = fronts[0.0]
    plain = (0.0, first.plain)
    every = [(head, point) for head, front in fronts.items() for point in (front.plain, *front.points)]
    better = [
        s
        for s in every
        if first.kept(s[1]) >= 1 and _value_of(s, "ild") >= LEAST_GAIN * _value_of(plain, "ild")
    ]
    chosen = {"plain": plain, "best_ndcg": max(better, key=lambda s: _value_of(s, "ndcg"), default=plain)}
    kept = [s for s in every if first.kept(s[1]) >= KEEP]
    for measure in ("ild", "coverage"):
        name = f"most_{measure}_at_95"
        chosen[name] = max(kept, key=lambda s: (_value_of(s, measure), _value_of(s, "ndcg")))
        chosen[f"{name} by re-ranking"] = (0.0, first.most_diverse(keep=KEEP, measure=measure))
    if INVERSE_PROPENSITY in fronts:
        chosen["inverse_propensity"] = (INVERSE_PROPENSITY, fronts[INVERSE_PROPENSITY].plain)
    return chosen


def _value_of(setting: Setting, measure: str) -> float:
    return setting[1].values[measure]


def run(
    prepared: RankingSet, seed: int, *, trials: int, linear_only: bool, n_candidates: int
) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Gives the front and what was chosen, and of each setting the test lists and their values per user."""
    split, text = prepared.split, centre(prepared.item_vectors)
    section = HeadSection(n_fits=trials, **({"epochs": 0} if linear_only else {}))  # type: ignore[arg-type]
    linear = choose_linear_part(prepared, trials)
    # The linear part has no targets to weigh.
    heads = {
        weight: fit_on_texts(
            replace(section, inverse_propensity=weight), text, split, linear=linear, seed=seed
        )
        for weight in ((0.0,) if linear_only else (0.0, INVERSE_PROPENSITY))
    }
    spaces, rulers = make_spaces(text, split, seed=seed)
    start = time.perf_counter()
    fronts = {
        weight: measure_front(fitted, split, spaces, rulers, k=K, n_candidates=n_candidates)
        for weight, fitted in heads.items()
    }
    seconds = time.perf_counter() - start
    spaces = spaces.counted_anew(split.item_counts(include_validation=True))
    tops = {weight: fitted.top_k(split.test, k=n_candidates) for weight, fitted in heads.items()}
    chosen, arrays = choose(fronts), {}
    for name, (weight, setting) in chosen.items():
        lists = lists_by(spaces, *tops[weight], setting, k=K, chances=fronts[weight].chances)
        arrays[f"{name}/lists"] = lists.astype(np.int32)
        for measure, values in _per_user(split, lists, rulers).items():
            arrays[f"{name}/{measure}"] = values
    about = {
        "front": fronts[0.0].to_json(),
        "chosen": {name: [weight, asdict(setting)] for name, (weight, setting) in chosen.items()},
        "seconds": seconds,
        "validation": {str(weight): fitted.validation for weight, fitted in heads.items()},
    }
    return about, arrays


def _per_user(split: Split, lists: NDArray[np.int64], rulers: Rulers) -> dict[str, NDArray[np.float64]]:
    counts = split.user_counts(include_validation=True)
    return {
        "ndcg": ndcg_at_k(lists, list(split.test.targets), k=K),
        "ild": ild_at_k(lists, rulers.factors, k=K),
        "ild_text": ild_at_k(lists, rulers.text, k=K),
        "novelty": novelty_at_k(lists, counts, k=K, n_users=split.n_users),
    }


Piece = tuple[dict[str, Any], dict[str, NDArray[np.generic]]]


def piece_of(
    case: str, seed: int, settings: dict[str, Any], folder: Path, make: Callable[[], Piece]
) -> Piece:
    """Runs one set with one seed, or reads what an earlier call left; other settings have other files."""
    digest = hashlib.sha256(json.dumps([VERSION, settings]).encode()).hexdigest()[:8]
    file = folder / f"{case}-{seed}-{digest}.npz"
    if not file.exists():
        about, arrays = make()
        scratch = file.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(scratch, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
        os.replace(scratch, file)
    with np.load(file) as found:
        arrays = {key: found[key] for key in found.files if key != "about"}
        return json.loads(str(found["about"])), arrays


def rows_of(case: str, pieces: list[Piece], *, n_items: int) -> list[dict[str, Any]]:
    """Gives the plain list's values, each setting's gains, and the aims, over seeds and over users."""
    rows = []
    arrays = [found for _, found in pieces]
    for measure in (*MEASURES, "coverage"):
        values = [_value(found, "plain", measure, None, n_items) for found in arrays]
        rows.append(row(NAME, case, "plain", f"{measure}@{K}", values))
    for setting in (name for name in SETTINGS[1:] if f"{name}/ndcg" in arrays[0]):
        for measure in (*MEASURES, "coverage"):
            metric = "ndcg_kept" if measure == "ndcg" else f"{measure}_gain"
            rows += _ratio_rows(case, setting, metric, arrays, setting, measure, n_items)
    for metric, setting, measure in (
        ("ild_gain_at_95", "most_ild_at_95", "ild"),
        ("ndcg_kept", "most_ild_at_95", "ndcg"),
        ("coverage_gain_at_95", "most_coverage_at_95", "coverage"),
        ("ndcg_kept_at_coverage", "most_coverage_at_95", "ndcg"),
        ("ndcg_gain_at_best", "best_ndcg", "ndcg"),
        ("ild_gain_at_best", "best_ndcg", "ild"),
    ):
        rows += _ratio_rows(case, "lora_rec", metric, arrays, setting, measure, n_items)
    return rows


def _ratio_rows(
    case: str,
    system: str,
    metric: str,
    arrays: list[dict[str, NDArray[np.generic]]],
    setting: str,
    measure: str,
    n_items: int,
) -> list[dict[str, Any]]:
    """Gives a setting's value over the plain list's, less 1 for a gain: over seeds, then over users."""
    less = 1.0 if "gain" in metric else 0.0

    def ratio(found: dict[str, NDArray[np.generic]], users: NDArray[np.int64] | None) -> float:
        plain = _value(found, "plain", measure, users, n_items)
        return _value(found, setting, measure, users, n_items) / plain - less

    seeds = [ratio(found, None) for found in arrays]
    rng, n_users = np.random.default_rng(0), len(arrays[0]["plain/ndcg"])
    drawn = []
    for _ in range(N_RESAMPLES):
        users = rng.integers(n_users, size=n_users)
        drawn.append(float(np.mean([ratio(found, users) for found in arrays])))
    whole = row(NAME, case, system, metric, seeds)
    low, high = (float(value) for value in np.quantile(drawn, [0.025, 0.975]))
    value = whole["value"]
    return [
        whole,
        whole | {"metric": f"{metric} over users", "low": min(low, value), "high": max(high, value)},
    ]


def _value(
    found: dict[str, NDArray[np.generic]],
    setting: str,
    measure: str,
    users: NDArray[np.int64] | None,
    n_items: int,
) -> float:
    rows = slice(None) if users is None else users
    if measure == "coverage":
        return coverage_at_k(found[f"{setting}/lists"][rows].astype(np.int64), k=K, n_items=n_items)
    return float(np.nanmean(found[f"{setting}/{measure}"][rows].astype(np.float64)))


def draw(fronts: dict[str, tuple[dict[str, Any], dict[str, Any]]], file: Path) -> None:
    """Draws each set's front on its validation users, of the first seed."""
    from matplotlib.figure import Figure

    from lora_rec.pipeline.pictures import draw_lines

    n_rows = -(-len(fronts) // 2)
    figure = Figure(figsize=(12, 5 * n_rows), layout="constrained")
    for axes, (case, (front, chosen)) in zip(
        figure.subplots(n_rows, 2, squeeze=False).ravel(), fronts.items(), strict=False
    ):
        draw_lines(axes, Front.from_json(front), Point(**chosen))
        axes.set_title(f"{case}, {front['n_users']:,} validation users")
        axes.legend(fontsize=6, loc="lower left")
    figure.savefig(file, dpi=80, metadata={"Software": ""})


def main() -> None:
    """Parses the command line, runs sets x seeds, and writes rows and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="holds movielens-100k/, ...")
    parser.add_argument("--sets", nargs="+", choices=RANKED, default=list(RANKED), metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=12, help="fits of the linear part")
    parser.add_argument("--linear", action="store_true", help="without the sequence part: minutes, not hours")
    parser.add_argument("--candidates", type=int, default=N_CANDIDATES, help="that re-ranking chooses from")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / NAME, help="what is done is kept here")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    folder: Path = arguments.runs
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"trials": arguments.trials, "linear": arguments.linear, "candidates": arguments.candidates}
    seeds = " ".join(map(str, arguments.seeds))
    command = f"python benchmarks/diversity.py --data-root DATA --seeds {seeds} --trials {arguments.trials}"
    command += f" --candidates {arguments.candidates}" + " --linear" * arguments.linear
    header = header_of(NAME, command) | settings | {"seeds": arguments.seeds}
    earlier = of_earlier_calls(settings | {"seeds": arguments.seeds})
    header |= earlier or {"chosen": {}, "dates": {}}
    rows: list[dict[str, Any]] = []
    fronts = {}
    for case in arguments.sets:
        prepared = prepare_set(case, arguments.data_root, folder)
        assert isinstance(prepared, RankingSet)  # see RANKED
        pieces = [
            piece_of(
                case,
                seed,
                settings,
                folder,
                lambda prepared=prepared, seed=seed: run(  # type: ignore[misc]
                    prepared,
                    seed,
                    trials=arguments.trials,
                    linear_only=arguments.linear,
                    n_candidates=arguments.candidates,
                ),
            )
            for seed in arguments.seeds
        ]
        found = rows_of(case, pieces, n_items=prepared.n_items)
        header["chosen"][case] = [
            {name: _described(point) for name, point in about["chosen"].items()} for about, _ in pieces
        ]
        fronts[case] = (pieces[0][0]["front"], pieces[0][0]["chosen"]["most_ild_at_95 by re-ranking"][1])
        for r in found:
            if r["system"] == "lora_rec":
                print(
                    f"{case} {r['metric']}: {r['value']:+.3f} ({r['low']:+.3f} to {r['high']:+.3f})",
                    flush=True,
                )
        print(
            f"{case}: swept in {[round(about['seconds']) for about, _ in pieces]} s; {header['chosen'][case]}"
        )
        header["dates"][case] = header["date"]
        rows += found
        write_rows(NAME, header, merge_rows(NAME, rows) if earlier else rows)
    if len(fronts) < len(RANKED):
        print(f"the picture is drawn when all of {', '.join(RANKED)} are asked for")
        return
    draw(fronts, RESULTS / f"{NAME}.png")


def of_earlier_calls(settings: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Gives what was chosen for each set, and when, by calls with the same settings; None without any."""
    file = RESULTS / f"{NAME}.json"
    old = json.loads(file.read_text(encoding="utf-8"))[0] if file.exists() else {}
    if not old or any(old.get(name) != value for name, value in settings.items()):
        return None
    return {"chosen": old["chosen"], "dates": old.get("dates", dict.fromkeys(old["chosen"], old["date"]))}


def _described(setting: tuple[float, dict[str, Any]]) -> str:
    weight, point = setting
    head = f"inverse propensity {weight:g}, " if weight else ""
    return f"{head}{Point(**point).line}, {point['diversity']:.3g}".replace("plain, 0", PLAIN)


if __name__ == "__main__":
    main()

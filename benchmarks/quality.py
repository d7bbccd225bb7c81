"""Our systems against peers on five published sets and their cold variants; writes results/quality.json.

Every set has its published protocol (quality_sets.py). Every system gets the same number of validation
trials, learns again from all that lies before the test, and is judged there once. `low` and `high` are the
lowest and the highest seed; in the rows `... over users` they are a 95 % bootstrap interval over users (MIND:
over impressions) of the mean over seeds. Of a cold set a seed is also a draw of the withheld items (but for
`-latest-cold`, where those that came last are withheld), and of lastfm-friends (quality_friends.py) one of
the withheld friendships; there the interval is over the users of all draws together, each with all values.
What cannot run on a set stands in the header with its reason.

Finished pieces are kept in runs/quality, so a call that was stopped goes on where it was. A call for some
sets or systems leaves the rows of the others as they were.

python benchmarks/quality.py --data-root ../shared/data
python benchmarks/quality.py --data-root ../shared/data --sets movielens-100k --systems ease recency_ease
python benchmarks/quality.py --data-root ../shared/data --peers-python .venv-peers/bin/python
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_friends import FRIENDS, FriendsSet, friend_systems, judged_friends, prepare_friends
from quality_judge import Answer, System, values_of
from quality_ours import our_systems
from quality_peers import PEERS
from quality_rectools import PeerFailed, rectools_systems
from quality_references import REFERENCES
from quality_search import TRIALS, VERSION
from quality_sentences import sentence_systems
from quality_sets import SETS, Prepared, RankingSet, prepare_set
from rows import RESULTS, header_of, row, write_rows

from lora_rec.metrics import bootstrap_interval, mean_over_users

ROOT = Path(__file__).resolve().parents[1]
NAME = "quality"
N_RESAMPLES, BOOTSTRAP_SEED = 1000, 0
CASES = (*SETS, FRIENDS)
FRIEND_NAMES = list(friend_systems(RESULTS))
NAMES = [
    *PEERS,
    *rectools_systems(None, RESULTS),
    *sentence_systems(None, RESULTS),
    *our_systems(RESULTS),
    *FRIEND_NAMES,
]


def file_of(case: str, name: str, system: System, seed: int, *, trials: int, folder: Path) -> Path:
    """Gives where a piece is kept: its settings are in the name, so that others are never read."""
    settings = json.dumps([VERSION, case, name, {k: list(v) for k, v in system.axes.items()}, trials])
    return folder / f"{case}-{name}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.npz"


def answer_of(
    prepared: Prepared | FriendsSet, name: str, system: System, seed: int, *, trials: int, folder: Path
) -> Answer:
    """Runs one system on one set with one seed, or reads what an earlier call left.

    After a change of the code that concerns it, delete its file.
    """
    file = file_of(prepared.name, name, system, seed, trials=trials, folder=folder)
    if not file.exists():
        start = time.perf_counter()
        answer = system.run(prepared, seed, trials)  # type: ignore[arg-type]
        about = {"settings": answer.settings, "validation": answer.validation, "trials": answer.trials}
        about |= {"seconds": time.perf_counter() - start}
        scratch = file.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(scratch, about=np.array(json.dumps(about)), **answer.results)  # type: ignore[arg-type]
        os.replace(scratch, file)
    with np.load(file) as arrays:
        results = {key: arrays[key] for key in arrays.files if key != "about"}
        about = json.loads(str(arrays["about"]))
    return Answer(results, about["settings"], about["validation"], about["trials"])


def rows_of(
    sets: list[Prepared | FriendsSet], name: str, answers: list[Answer], seeds: list[int]
) -> list[dict[str, Any]]:
    """Gives one row per metric, and one with the interval over users for those that have users.

    Args:
        sets: what each answer is for; the same one again where a seed draws no set.
        name: of the system.
        answers: one per seed.
        seeds: as many.
    """
    prepared = sets[0]
    judged = [
        (answer.results, {}) if isinstance(of, FriendsSet) else values_of(of, answer)
        for of, answer in zip(sets, answers, strict=True)
    ]
    rows = []
    for metric in judged[0][0]:
        per_seed = [users[metric] for users, _ in judged]
        means = [mean_over_users(values, name=metric) for values in per_seed]
        rows.append(row(NAME, prepared.name, name, metric, means))
        if metric.startswith("ild"):
            continue
        if _is_drawn(prepared):
            owners = [owners_of(of, metric, seed) for of, seed in zip(sets, seeds, strict=True)]
            values, users = np.concatenate(per_seed), np.concatenate(owners)
        else:
            values = np.mean(per_seed, axis=0)
            users = np.arange(len(values))
        rows.append(_row_over_users(prepared.name, name, metric, values, users, len(answers)))
    rows += [
        row(NAME, prepared.name, name, metric, [whole[metric] for _, whole in judged])
        for metric in judged[0][1]
    ]
    return rows


def _is_drawn(prepared: Prepared | FriendsSet) -> bool:
    """Says whether every seed withholds something else."""
    name = prepared.name
    return isinstance(prepared, FriendsSet) or (name.endswith("-cold") and not name.endswith("-latest-cold"))


def owners_of(prepared: Prepared | FriendsSet, metric: str, seed: int) -> NDArray[np.int64]:
    """Gives whose each value of a metric is."""
    if isinstance(prepared, FriendsSet):
        return judged_friends(prepared, metric, seed)
    assert isinstance(prepared, RankingSet)  # no set of impressions is drawn
    return prepared.test.evaluation.users


def _row_over_users(
    case: str, name: str, metric: str, values: NDArray[np.float64], users: NDArray[np.int64], n: int
) -> dict[str, Any]:
    low, high = bootstrap_interval(values, users=users, n_resamples=N_RESAMPLES, seed=BOOTSTRAP_SEED)
    mean = mean_over_users(values, name=metric)
    whole = row(NAME, case, name, f"{metric} over users", [mean])
    # Of values that are nearly all alike, the interval may miss the mean by a rounding error.
    return whole | {"low": min(low, mean), "high": max(high, mean), "n": n}


def systems_for(case: str, systems: dict[str, System]) -> dict[str, System]:
    """Gives the systems that recommend what a case asks for: friends, or items."""
    return {name: s for name, s in systems.items() if (name in FRIEND_NAMES) == (case == FRIENDS)}


def run_set(
    sets: list[Prepared | FriendsSet],
    systems: dict[str, System],
    *,
    seeds: list[int],
    trials: int,
    folder: Path,
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Gives the rows of one set, one per seed, what each system chose, and why others were left out."""
    prepared = sets[0]
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, system in systems.items():
        reason = system.fits(prepared)  # type: ignore[arg-type]
        if not reason:
            try:
                wanted = list(zip(seeds, sets, strict=True))
                answers = []
                for seed, drawn in wanted if system.seeded or _is_drawn(prepared) else wanted[:1]:
                    answers.append(answer_of(drawn, name, system, seed, trials=trials, folder=folder))
            except PeerFailed as error:
                reason = str(error)
        if reason:
            left_out[name] = reason
            print(f"{prepared.name}, {name}: left out, {reason}", flush=True)
            continue
        rows += rows_of(sets[: len(answers)], name, answers, seeds[: len(answers)])
        chosen[name] = answers[0].settings | {
            "validation": round(answers[0].validation, 4),
            "trials": answers[0].trials,
        }
        shown = next(r for r in reversed(rows) if r["metric"].endswith("over users") and r["system"] == name)
        headline = next(r for r in rows if r["system"] == name)
        print(
            f"{prepared.name}, {name}: {headline['metric']} {headline['value']:.4f}"
            f" ({shown['n']} runs, chosen {chosen[name]})",
            flush=True,
        )
    return rows, chosen, left_out


def merge(
    header: dict[str, Any], rows: list[dict[str, Any]], *, systems: list[str], sets: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Keeps what an earlier call with the same trials, and these seeds or more, found for others.

    Args:
        header: of this call; `fewer_seeds` says what drew numbers with its seeds, by set and system.
        rows: of this call.
        systems: of this call.
        sets: of this call, as far as it is.
    """
    file = RESULTS / f"{NAME}.json"
    old_header, *old = json.loads(file.read_text(encoding="utf-8")) if file.exists() else [header]
    whole, trials = old_header["seeds"], old_header["trials"]
    if trials != header["trials"] or not set(header["seeds"]) <= set(whole):
        return header | {"fewer_seeds": {}}, rows
    fewer = header["fewer_seeds"] if header["seeds"] != whole else {}
    for case, before in old_header["fewer_seeds"].items():
        others = {s: v for s, v in before.items() if case not in sets or s not in systems}
        fewer = fewer | {case: others | fewer.get(case, {})}
    header = header | {"seeds": whole, "command": old_header["command"]}
    header["fewer_seeds"] = {case: found for case, found in fewer.items() if found}
    kept = [r for r in old if not (r["case"] in sets and r["system"] in systems)]
    for key in ("chosen", "left_out"):
        for case, before in old_header[key].items():
            others = {s: v for s, v in before.items() if case not in sets or s not in systems}
            header[key][case] = others | header[key].get(case, {})
    measured = {(r["case"], r["system"]) for r in kept}
    for case, reasons in header["left_out"].items():
        header["left_out"][case] = {s: why for s, why in reasons.items() if (case, s) not in measured}
    places = {case: place for place, case in enumerate(CASES)}
    names = {name: place for place, name in enumerate(NAMES)}
    for key in ("chosen", "left_out"):  # in one order, whatever the order of the calls
        found = sorted(header[key].items(), key=lambda item: places[item[0]])
        header[key] = {
            case: dict(sorted(by_system.items(), key=lambda item: names.get(item[0], len(names))))
            for case, by_system in found
        }
    together = kept + rows
    return header, sorted(together, key=lambda r: (places[r["case"]], names.get(r["system"], len(names))))


def main() -> None:
    """Parses the command line, runs sets x systems x seeds, and writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, required=True, help="holds movielens-100k/, online-retail/, ..."
    )
    parser.add_argument(
        "--sets", nargs="+", choices=CASES, default=list(CASES), metavar="SET", help=", ".join(CASES)
    )
    parser.add_argument("--systems", nargs="+", choices=NAMES, metavar="SYSTEM", help=", ".join(NAMES))
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of systems that draw numbers"
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help="validation trials of each system")
    parser.add_argument(
        "--peers-python",
        type=Path,
        help="interpreter with rectools (make benchmark-quality-env); without it those peers are left out",
    )
    parser.add_argument("--sentences-python", type=Path, help="likewise, with sentence-transformers")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "quality", help="what is done is kept here"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    folder: Path = arguments.runs
    folder.mkdir(parents=True, exist_ok=True)
    here = PEERS | our_systems(folder) | friend_systems(folder)
    rectools = rectools_systems(arguments.peers_python, folder)
    sentences = sentence_systems(arguments.sentences_python, folder)
    every = here | rectools | sentences
    # Without an interpreter the rows that an earlier call measured for its peers stay as they are.
    default = here | (rectools if arguments.peers_python else {})
    default |= sentences if arguments.sentences_python else {}
    systems = {name: every[name] for name in arguments.systems or default}
    seeds = " ".join(map(str, arguments.seeds))
    command = f"python benchmarks/quality.py --data-root DATA --seeds {seeds} --trials {arguments.trials}"
    header = header_of(NAME, command) | {"seeds": arguments.seeds, "trials": arguments.trials}
    header |= {"references": REFERENCES, "chosen": {}, "left_out": {}, "fewer_seeds": {}}
    rows: list[dict[str, Any]] = []
    for case in arguments.sets:
        sets: list[Prepared | FriendsSet]
        if case == FRIENDS:
            sets = [prepare_friends(arguments.data_root, folder)] * len(arguments.seeds)
        elif case.endswith("-cold") and not case.endswith("-latest-cold"):
            sets = [prepare_set(case, arguments.data_root, folder, draw=seed) for seed in arguments.seeds]
        else:
            sets = [prepare_set(case, arguments.data_root, folder)] * len(arguments.seeds)
        found, header["chosen"][case], left_out = run_set(
            sets,
            systems_for(case, systems),
            seeds=arguments.seeds,
            trials=arguments.trials,
            folder=folder,
        )
        others = systems_for(case, {name: system for name, system in every.items() if name not in systems})
        absent = {name: system.fits(sets[0]) for name, system in others.items()}  # type: ignore[arg-type]
        header["left_out"][case] = {name: reason for name, reason in absent.items() if reason} | left_out
        drawn = {name for name in header["chosen"][case] if systems[name].seeded or _is_drawn(sets[0])}
        header["fewer_seeds"][case] = dict.fromkeys(sorted(drawn), arguments.seeds)
        rows += found
        # After every set, so that a long run shows what it has.
        write_rows(
            NAME,
            *merge(
                header, rows, systems=list(systems), sets=arguments.sets[: arguments.sets.index(case) + 1]
            ),
        )


if __name__ == "__main__":
    main()

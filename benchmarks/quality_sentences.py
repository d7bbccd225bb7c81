"""The peer of sentence-transformers: MiniLM fine-tuned with peft, as its documentation shows.

It learns pairs of texts, an item of a history and the next one, with in-batch negatives. A user is then the
recency-weighted mean of the history's vectors, as for the frozen `minilm`. It runs in an environment of its
own, because transformers 5.24 asks for a peft that is not released, and `add_adapter` fails in the project's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, Scorer, System, choose_and_rank, choose_and_score, lists_of
from quality_peers import DECAY, order_candidates, weighted_vectors, weights_of
from quality_rectools import ROOT, call_peer
from quality_search import VERSION, Axes, Settings
from quality_sets import ImpressionSet, Part, Prepared, RankingSet
from quality_texts import RULER

from lora_rec.data import Impressions, Lists, join_impressions
from lora_rec.pipeline.candidates import last_histories

NAME = "sentence_transformers_peft"
SCRIPT = ROOT / "benchmarks" / "peers" / "sentence_transformers_peer.py"
# The example's rate of 2e-5 is for a million pairs; 120 batches of 64 take three minutes on a slow core.
AXES: Axes = {
    "learning_rate": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "steps": (30, 60, 120),
    "lora_rank": (8, 64),
}
# Near the frozen model: on MovieLens validation, rates of 3e-4 and more with rank 64 fall below it at once.
START = {"learning_rate": 1e-4, "steps": 60, "lora_rank": 8}
Encode = Callable[[Lists, Settings], NDArray[np.float32]]
"""Gives the vectors (N, D) of all texts after training on some histories."""


def pairs_of(histories: Lists, texts: Sequence[str], *, ordered: bool, seed: int) -> NDArray[np.int64]:
    """Gives (P, 2), each item of a history and the next one, without pairs of one text.

    Histories that are in no order of time are shuffled, so that a pair is any two items of a user.
    """
    values, owners = histories.values, np.repeat(np.arange(len(histories)), histories.counts)
    if not ordered:
        values = values[np.lexsort((np.random.default_rng(seed).random(len(values)), owners))]
    _, numbers = np.unique(np.array(texts), return_inverse=True)
    kept = (owners[1:] == owners[:-1]) & (numbers[values[1:]] != numbers[values[:-1]])
    return np.stack([values[:-1], values[1:]], axis=1)[kept]


def clicks_of(before: Sequence[Impressions]) -> Lists:
    """Gives the history of each user's last impression; those before it are part of that."""
    return last_histories(join_impressions(before))


def fine_tuned(
    texts: Sequence[str],
    pairs: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    python: Path,
    folder: Path,
    log: Path,
) -> NDArray[np.float32]:
    """Gives the unit vectors of the texts after training in the interpreter of its environment."""
    from lora_rec.towers.source import resolve_backbone

    task, output = folder / f"task-{os.getpid()}.npz", folder / f"vectors-{os.getpid()}.npy"
    np.savez_compressed(task, texts=np.array(texts), pairs=pairs)
    command = [str(python), str(SCRIPT), "--task", str(task), "--output", str(output)]
    command += ["--backbone", str(resolve_backbone(f"package:{RULER}").folder)]
    command += ["--settings", json.dumps(settings), "--seed", str(seed)]
    try:
        call_peer(command, log=log)
        return np.asarray(np.load(output))
    finally:
        for file in (task, output):
            file.unlink(missing_ok=True)


def run(prepared: Prepared, seed: int, trials: int, *, python: Path, folder: Path) -> Answer:
    """Chooses on validation, trains again on all that lies before the test, and answers for the test.

    The first seed that runs chooses the settings and leaves them for the other seeds of the same draw, as
    rectools' peers do.
    """
    log = folder / f"{prepared.name}-{NAME}-{seed}.log"
    ordered = isinstance(prepared, ImpressionSet) or prepared.ordered

    answer_for = _answer_impressions if isinstance(prepared, ImpressionSet) else _answer_lists
    # Another draw withholds other items, of which this one's choice has learned.
    drawn = "" if isinstance(prepared, ImpressionSet) or prepared.draw is None else f"-{prepared.draw}"
    kept = folder / f"{prepared.name}{drawn}-{NAME}-trials"

    def encode(histories: Lists, settings: Settings) -> NDArray[np.float32]:
        pairs = pairs_of(histories, prepared.item_texts, ordered=ordered, seed=seed)
        asked = json.dumps([VERSION, settings, seed, *prepared.item_texts]).encode()
        file = kept / f"{hashlib.sha256(asked + pairs.tobytes()).hexdigest()[:16]}.npy"
        if file.exists():  # of a run that was stopped
            return np.asarray(np.load(file))
        vectors = fine_tuned(
            prepared.item_texts, pairs, settings, seed=seed, python=python, folder=folder, log=log
        )
        kept.mkdir(exist_ok=True)
        np.save(scratch := kept / f"{os.getpid()}.part.npy", vectors)
        scratch.replace(file)
        return vectors

    choice = folder / f"{prepared.name}{drawn}-{NAME}-{trials}.choice.json"
    given = {"version": VERSION, "axes": {key: list(values) for key, values in AXES.items()}, "start": START}
    about = json.loads(choice.read_text(encoding="utf-8")) if choice.exists() else {}
    known = about["settings"] if about.get("given") == given else None
    answer = answer_for(prepared, encode, trials, known)  # type: ignore[arg-type]
    if known is not None:
        shutil.rmtree(kept, ignore_errors=True)
        return Answer(answer.results, known, about["validation"], about["trials"])
    about = {"settings": answer.settings, "validation": answer.validation, "trials": answer.trials}
    choice.write_text(json.dumps(about | {"given": given}), encoding="utf-8")
    shutil.rmtree(kept, ignore_errors=True)
    return answer


def _answer_lists(prepared: RankingSet, encode: Encode, trials: int, known: Settings | None) -> Answer:
    @lru_cache(maxsize=1)
    def vectors_of(part: Part, chosen: tuple[float, ...]) -> NDArray[np.float32]:
        return encode(part.fit, dict(zip(AXES, chosen, strict=True)))

    def build(part: Part, settings: Settings) -> Scorer:
        vectors = vectors_of(part, tuple(settings[name] for name in AXES))
        weights = weights_of(part, settings["decay"])
        return weighted_vectors(part, weights, user_side=vectors, item_side=vectors)

    if known is not None:
        scorer = build(prepared.test, known)
        return Answer(dict(lists_of(prepared.test, scorer, n_items=prepared.n_items)))
    free = DECAY if prepared.ordered else {"decay": (1.0,)}
    # Five trainings a trial would be hours; the frozen vectors are chosen on all parts.
    return choose_and_rank(prepared, build, AXES, START, trials, free=free, most_parts=1)


def _answer_impressions(
    prepared: ImpressionSet, encode: Encode, trials: int, known: Settings | None
) -> Answer:
    @lru_cache(maxsize=1)
    def vectors_of(n_parts: int, chosen: tuple[float, ...]) -> NDArray[np.float32]:
        parts = prepared.impressions
        before = [parts.train, parts.validation][:n_parts]
        return encode(clicks_of(before), dict(zip(AXES, chosen, strict=True)))

    def build(before: Sequence[Impressions], shown: Impressions, settings: Settings) -> NDArray[np.float64]:
        vectors = vectors_of(len(before), tuple(settings[name] for name in AXES))
        return order_candidates(shown, vectors, decay=settings["decay"])

    if known is not None:
        parts = prepared.impressions
        return Answer({"scores": build([parts.train, parts.validation], parts.test, known)})
    return choose_and_score(prepared, build, AXES, START, trials, free=DECAY)


def sentence_systems(python: Path | None, folder: Path) -> dict[str, System]:
    """Gives the peer by name; without an interpreter it does not fit."""

    def fits(prepared: Prepared) -> str:
        return "" if python else "not run yet; it needs --sentences-python, see make benchmark-quality-env"

    absolute = python.absolute() if python else Path()
    return {NAME: System(partial(run, python=absolute, folder=folder.absolute()), fits, AXES, seeded=True)}

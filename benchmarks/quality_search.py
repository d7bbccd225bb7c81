"""The one way in which every system's settings are chosen: the same number of trials on validation data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

TRIALS = 12
"""Validation trials of every system; one with fewer settings than that tries them all."""
VERSION = 2
"""Raise it when a protocol or a metric's lists change: older pieces, choices and towers are then not read."""
Axes = Mapping[str, Sequence[float]]
Settings = dict[str, float]
_Place = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """What validated best."""

    settings: Settings
    score: float
    trials: int
    """How many were tried."""


def climb(evaluate: Callable[[Settings], float], axes: Axes, start: Settings, *, trials: int) -> Found:
    """Climbs a grid from a start: tries the neighbours of the best so far, a step along one axis first.

    A step that gained is followed. Where none along one axis gains, steps along several are tried, since two
    settings often make up for one another, and then what lies farther off, the nearest first. Ends when the
    trials are spent or the grid is: a small one is tried whole.

    Args:
        evaluate: gives the validation score of settings.
        axes: setting to its values, in order.
        start: one value of each axis.
        trials: at most so many calls of `evaluate`.

    >>> climb(lambda s: -abs(s["x"] - 3), {"x": [0, 1, 2, 3, 4]}, {"x": 1}, trials=9)
    Found(settings={'x': 3}, score=0, trials=5)
    """
    sizes = [len(values) for values in axes.values()]
    best = tuple(list(values).index(start[name]) for name, values in axes.items())
    scores = {best: evaluate(dict(start))}
    reach = [sorted(range(1 - size, size), key=lambda step: (abs(step), -step)) for size in sizes]
    around = sorted(product(*reach), key=_reach)[1:]
    heading: list[_Place] = []
    while len(scores) < trials:
        reached = ((step, _add(best, step)) for step in [*heading, *around])
        waiting = (
            (step, place)
            for step, place in reached
            if place not in scores and all(0 <= at < size for at, size in zip(place, sizes, strict=True))
        )
        step, place = next(waiting, ((), ()))
        if not place:
            break
        scores[place] = evaluate(_settings(place, axes))
        gained = scores[place] > scores[best]
        best, heading = (place, [step]) if gained else (best, [])
    return Found(_settings(best, axes), scores[best], len(scores))


def climb_with_free(
    evaluate: Callable[[Settings], float], axes: Axes, start: Settings, *, trials: int, free: Axes
) -> Found:
    """Climbs as `climb` does; every trial takes the best of the free settings, which need no new fit.

    >>> score = lambda s: s["x"] - abs(s["y"] - 5)
    >>> climb_with_free(score, {"x": [0, 1]}, {"x": 0}, trials=9, free={"y": [4, 5]})
    Found(settings={'x': 1, 'y': 5}, score=1, trials=2)
    """
    best: dict[tuple[float, ...], Settings] = {}
    combinations = [dict(zip(free, values, strict=True)) for values in product(*free.values())]

    def evaluate_best(settings: Settings) -> float:
        scores = [evaluate(settings | more) for more in combinations]
        score = max(scores)
        best[tuple(settings.values())] = combinations[scores.index(score)]
        return score

    found = climb(evaluate_best, axes, start, trials=trials)
    return replace(found, settings=found.settings | best[tuple(found.settings.values())])


def keep_scores(
    evaluate: Callable[[Settings], float], file: Path, *, given: object
) -> Callable[[Settings], float]:
    """Gives what evaluates once, and reads from a file what an earlier call that was stopped found.

    Args:
        evaluate: takes long.
        file: JSON, written after every trial.
        given: as JSON has it, what the scores depend on beside the settings; others' are not read.
    """
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if kept.get("given") != given:
        kept = {"given": given, "scores": []}

    def look(settings: Settings) -> float:
        for known, score in kept["scores"]:
            if known == settings:
                return float(score)
        score = evaluate(settings)
        kept["scores"].append([dict(settings), score])
        scratch = file.with_suffix(".part")
        scratch.write_text(json.dumps(kept), encoding="utf-8")
        scratch.replace(file)
        return score

    return look


def _reach(step: _Place) -> tuple[int, int]:
    """Gives how far a step goes along one axis, and along all."""
    return max(map(abs, step), default=0), sum(map(abs, step))


def _add(place: _Place, step: _Place) -> _Place:
    return tuple(at + move for at, move in zip(place, step, strict=True))


def _settings(place: _Place, axes: Axes) -> Settings:
    return {name: values[at] for at, (name, values) in zip(place, axes.items(), strict=True)}

"""The one way in which every system's settings are chosen: the same number of trials on validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

TRIALS = 12
"""Validation trials of every system; one with fewer settings than that tries them all."""
Axes = Mapping[str, Sequence[float]]
Settings = dict[str, float]


@dataclass(frozen=True)
class Found:
    """What validated best."""

    settings: Settings
    score: float
    trials: int
    """How many were tried."""


def climb(evaluate: Callable[[Settings], float], axes: Axes, start: Settings, *, trials: int) -> Found:
    """Climbs a grid from a start: tries the neighbours of the best so far, one step along one axis.

    Ends when every neighbour was tried or the trials are spent. A step that gained is followed first.

    Args:
        evaluate: gives the validation score of settings.
        axes: setting to its values, in order.
        start: one value of each axis.
        trials: at most so many calls of `evaluate`.

    >>> climb(lambda s: -abs(s["x"] - 3), {"x": [0, 1, 2, 3, 4]}, {"x": 1}, trials=9)
    Found(settings={'x': 3}, score=0, trials=4)
    """
    names = list(axes)
    best = tuple(list(axes[name]).index(start[name]) for name in names)
    scores = {best: evaluate(dict(start))}
    heading: tuple[int, int] | None = None
    while len(scores) < trials:
        waiting = [step for step in _steps(names, heading) if _go(best, step, axes) not in scores]
        waiting = [step for step in waiting if _go(best, step, axes) is not None]
        if not waiting:
            break
        place = _go(best, waiting[0], axes)
        assert place is not None  # those were left out
        scores[place] = evaluate(_settings(place, axes))
        heading = waiting[0] if scores[place] > scores[best] else None
        best = place if heading else best
    return Found(_settings(best, axes), scores[best], len(scores))


def _steps(names: list[str], heading: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    if heading:
        yield heading
    yield from ((axis, sign) for axis in range(len(names)) for sign in (1, -1))


def _go(place: tuple[int, ...], step: tuple[int, int], axes: Axes) -> tuple[int, ...] | None:
    axis, sign = step
    moved = place[axis] + sign
    if not 0 <= moved < len(list(axes.values())[axis]):
        return None
    return (*place[:axis], moved, *place[axis + 1 :])


def _settings(place: tuple[int, ...], axes: Axes) -> Settings:
    return {name: values[at] for at, (name, values) in zip(place, axes.items(), strict=True)}

"""Refuses settings by which no list can be made, or which would have no effect."""

from __future__ import annotations

import numpy as np

from lora_rec.errors import ArgumentError
from lora_rec.schema import SPACES, STRATEGIES, VECTOR_STRATEGIES, RankingManifest


def check_length(k: int) -> None:
    """Refuses what is no length of a list.

    Raises:
        ArgumentError: `k` is below 1, or no whole number.
    """
    if not isinstance(k, int | np.integer):
        raise ArgumentError(f"k: {k!r} is no whole number; give the length of the list")
    if k < 1:
        raise ArgumentError(f"k: {k} is below 1; give the length of the list")


def check_settings(*, k: int, diversity: float, strategy: str, explore: float, seed: int) -> None:
    """Refuses what no list can be made by.

    Raises:
        ArgumentError: a number is out of range, or the strategy is unknown.
    """
    check_length(k)
    if not 0 <= diversity <= 1:
        raise ArgumentError(f"diversity: {diversity} is not in [0, 1]")
    if strategy not in STRATEGIES:
        raise ArgumentError(f"strategy: {strategy!r} is unknown; give one of {', '.join(STRATEGIES)}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ArgumentError(f"seed: {seed!r}; give a whole number from 0")
    if not 0 <= explore <= 1:
        raise ArgumentError(f"explore: {explore} is not in [0, 1]; give a share of the list's places")


def check_choice(space: str | None, strategy: str, n_candidates: int | None) -> None:
    """Refuses a space and a number of candidates that no list can be made by.

    Raises:
        ArgumentError: the space is unknown, or the strategy does not look at any; or there are no candidates.
    """
    if space is not None and space not in SPACES:
        raise ArgumentError(f"space: {space!r} is unknown; give one of {', '.join(SPACES)}")
    if space is not None and strategy not in VECTOR_STRATEGIES:
        raise ArgumentError(
            f"space: has no effect on {strategy!r}, which looks at no vectors; leave it out, or give one of"
            f" {', '.join(VECTOR_STRATEGIES)} as strategy"
        )
    if n_candidates is not None and (n_candidates < 1 or n_candidates != int(n_candidates)):
        raise ArgumentError(f"n_candidates: {n_candidates}; give a whole number above 0, or leave it out")


def check_own_strength(own: RankingManifest, strategy: str | None, space: str | None) -> None:
    """Refuses a strategy or a space for which a bundle's own diversity means nothing.

    Names that are unknown are for `rerank.check_settings` to refuse.

    Raises:
        ArgumentError: the own diversity is 0, or one of another strategy.
    """
    if strategy is not None and strategy not in STRATEGIES:
        return
    named = "strategy" if strategy else "space"
    if (strategy or space) and own.diversity == 0:
        raise ArgumentError(
            f"{named}: has no effect at diversity 0, which is this bundle's own; give a diversity, e.g. .3"
        )
    if strategy is not None and strategy != own.strategy:
        raise ArgumentError(
            f"strategy: this bundle's own diversity, {own.diversity:g}, is one of {own.strategy!r}; give one"
            f" for {strategy!r}"
        )

"""Training examples: points of users' histories, and what came next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError


@dataclass(frozen=True, eq=False)
class Examples:
    """One row per point: the items before it and the next ones after it."""

    users: NDArray[np.int64]
    """(M,), internal user ids."""
    histories: Lists
    """(M), items before the point, oldest first."""
    targets: Lists
    """(M), the next items after it."""
    places: NDArray[np.int64]
    """(M,), how many items of the user's whole history lie before it."""

    def __len__(self) -> int:
        return len(self.users)

    def before(self, histories: Lists, *, length: int) -> Lists:
        """Gives (M), what lies before each point in the histories that they were drawn from.

        Args:
            histories: (n_users)
            length: most recent items kept.
        """
        points = zip(self.users, self.places, strict=True)
        return Lists.from_arrays(histories[user][max(0, place - length) : place] for user, place in points)


def draw_examples(
    histories: Lists, *, per_user: int, history_length: int, n_targets: int, seed: int
) -> Examples:
    """Draws points of each user's history from which training looks ahead.

    What the user took before the point is no target: no list shows it. A point after which nothing else came
    is left out.

    Args:
        histories: (n_users), training items of each user, oldest first.
        per_user: points per user; a user with fewer possible points gives all of them.
        history_length: most recent items kept before a point.
        n_targets: next items that count as positives.
        seed: same seed, same points.

    Raises:
        DataError: no user has two different items.

    >>> lists = Lists.from_arrays([[7, 8, 9]])
    >>> drawn = draw_examples(lists, per_user=9, history_length=1, n_targets=2, seed=0)
    >>> [(h.tolist(), t.tolist()) for h, t in zip(drawn.histories, drawn.targets)]
    [([7], [8, 9]), ([8], [9])]
    """
    generator = np.random.default_rng(seed)
    users: list[int] = []
    places: list[int] = []
    before: list[NDArray[np.int64]] = []
    after: list[NDArray[np.int64]] = []
    for user in range(len(histories)):
        history = histories[user]
        n_points = len(history) - 1
        if n_points < 1:
            continue
        points = 1 + np.sort(generator.choice(n_points, size=min(per_user, n_points), replace=False))
        _, firsts = np.unique(history, return_index=True)
        is_first = np.zeros(len(history), dtype=bool)
        is_first[firsts] = True
        for point in points:
            targets = history[point:][is_first[point:]][:n_targets]
            if not len(targets):
                continue
            users.append(user)
            places.append(int(point))
            before.append(history[max(0, point - history_length) : point])
            after.append(targets)
    if not users:
        raise DataError(
            "training: no user has two different items, so there is nothing to predict; give more data"
        )
    return Examples(
        np.array(users, dtype=np.int64),
        Lists.from_arrays(before),
        Lists.from_arrays(after),
        np.array(places, dtype=np.int64),
    )

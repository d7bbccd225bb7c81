"""Fits the model of friendships in closed form; see `rank.friends`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.friends import list_friends
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank.friends import FriendModel, FriendSettings, mix_cosines
from lora_rec.rank.taste import Tastes

MOST_USERS = 14_000
"""A matrix of users by users is inverted: 4 n^2 bytes, a few times."""


class FriendFit:
    """Fits models of different settings on the same friendships and tastes."""

    def __init__(self, friends: NDArray[np.int64], tastes: Tastes) -> None:
        """Counts common friends and compares tastes, once for all settings.

        Args:
            friends: (E, 2), undirected pairs of users.
            tastes: one per user.

        Raises:
            DataError: a pair is wrong, or there are too many users.
        """
        n_users = len(tastes.histories)
        if n_users > MOST_USERS:
            raise DataError(
                f"friends: {n_users:,} users; a matrix of users by users is inverted, so take at most "
                f"{MOST_USERS:,}, for example those of one region"
            )
        self._tastes, self._friends = tastes, list_friends(friends, n_users=n_users)
        self._common = count_common(self._friends)
        self._cosines = tastes.own_cosines()

    def model(self, settings: FriendSettings) -> FriendModel:
        """Gives the fitted model.

        Raises:
            DataError: texts shall count, and there are none.
        """
        if settings.text_share and not self._tastes.item_vectors.shape[1]:
            raise DataError(
                f"friends.text_share: {settings.text_share:g} without item_vectors; give them, or set it to 0"
            )
        matrix = settings.taste_weight * mix_cosines(*self._cosines, text_share=settings.text_share)
        matrix += self._common
        matrix[np.diag_indices_from(matrix)] += np.float32(settings.regularisation)
        return FriendModel(np.linalg.inv(matrix), self._friends, self._tastes, settings)


def count_common(friends: Lists) -> NDArray[np.float32]:
    """Counts common friends of all pairs, (n, n), where everyone is also their own friend.

    >>> count_common(list_friends(np.array([[0, 1], [1, 2]]), n_users=3)).tolist()
    [[2.0, 2.0, 1.0], [2.0, 3.0, 2.0], [1.0, 2.0, 2.0]]
    """
    n_users = len(friends)
    matrix = np.eye(n_users, dtype=np.float32)
    matrix[np.repeat(np.arange(n_users), friends.counts), friends.values] = 1
    return matrix @ matrix

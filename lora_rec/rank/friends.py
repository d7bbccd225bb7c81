"""Who may become friends: the linear model of `linear`, on users instead of items, with tastes as rows.

With the friendships A (n, n), everyone also their own friend, X = A + 1, and the cosines T of tastes,
P = (X X + w T + l)^-1 gives the weights B_uv = -P_uv / P_vv of EASE (Steck 2019, arXiv 1905.03375; further
rows: Jeunen et al. 2020). A friendship has no direction, so both are added up: S = X B + (X B)'. On Last.fm
that lifts validation `ndcg@10` from .158 to .178; common neighbours have .106, Adamic-Adar .116.

Because everyone is their own friend, a user without friends is scored by taste alone. A newcomer is scored
as if the model had been fitted with them: P of n + 1 users follows from that of n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.friends import not_to_suggest
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank.linear import sum_by_row
from lora_rec.rank.search import top_k_of
from lora_rec.rank.taste import Tastes

_Array = NDArray[np.float32]
_Ints = NDArray[np.int64]
USERS_AT_ONCE = 64


@dataclass(frozen=True)
class FriendSettings:
    """The numbers of a fit; l, w, and what T is made of."""

    regularisation: float = 160.0
    taste_weight: float = 40.0
    text_share: float = 0.0
    """T is the cosine by items, and for this share the one by texts; within [0, 1]."""

    def __post_init__(self) -> None:
        good = self.regularisation > 0 and self.taste_weight >= 0 and 0 <= self.text_share <= 1
        if not good:
            raise DataError(
                f"friends: {self}; regularisation is above 0, taste_weight not negative, text_share in [0, 1]"
            )


@dataclass(frozen=True, eq=False)
class FriendModel:
    """Scores users for users; made by `train.friends.FriendFit`."""

    inverse: _Array
    """(n, n), P of the module's docstring."""
    friends: Lists
    """(n), known friends of each user, sorted."""
    tastes: Tastes
    settings: FriendSettings

    @property
    def n_users(self) -> int:
        """How many users there are, n."""
        return len(self.friends)

    def scores(self, users: _Ints) -> _Array:
        """Gives (U, n), one number for a pair in either direction; friends' and one's own mean nothing."""
        own, rows = self.inverse[users], self.friends.take(users)
        theirs = sum_by_row(
            self.inverse[rows.values], np.repeat(np.arange(len(rows)), rows.counts), n_rows=len(rows)
        )
        diagonal = self.inverse.diagonal()
        return self._both_ways(own, theirs, diagonal, diagonal[users])

    def top_k(self, users: _Ints, *, k: int) -> tuple[_Ints, _Array]:
        """Gives the best users (U, K) who are not friends yet, and their scores (U, K); see `top_k_of`."""
        return top_k_of(
            lambda rows: self.scores(users[rows]),
            n_users=len(users),
            n_items=self.n_users,
            k=k,
            exclude=not_to_suggest(self.friends, users),
            block=USERS_AT_ONCE,
        )

    def newcomer_scores(
        self, history: _Ints, *, friends: _Ints | None = None, strengths: _Array | None = None
    ) -> _Array:
        """Gives (n,), as if a user had been there when the model was fitted; friends' mean nothing.

        Args:
            history: the user's items; without any, only friends speak.
            friends: users whom they know, if any.
            strengths: one per item, how often the user took it; where the model was fitted with such.
        """
        one = Lists.from_arrays([history], None if strengths is None else [strengths])
        taste = mix_cosines(*self.tastes.cosines(one), text_share=self.settings.text_share)[0]
        known = np.zeros(self.n_users, np.float32)
        known[np.asarray([] if friends is None else friends, np.int64)] = 1
        # X X grows by known known' (Sherman and Morrison), then by a row and a column (Schur).
        spread = self.inverse @ known
        shrink = spread / (1 + known @ spread)
        weight, regularisation = self.settings.taste_weight, self.settings.regularisation
        column = self._walk(known[None])[0] + known + weight * taste
        solved = self.inverse @ column - shrink * (spread @ column)
        corner = known.sum() + 1 + weight * bool(one.counts[0]) + regularisation - column @ solved
        own = -solved / corner
        theirs = spread - shrink * (known @ spread) + solved * (known @ solved) / corner
        diagonal = self.inverse.diagonal() - spread * shrink + solved**2 / corner
        return self._both_ways(own[None], theirs[None], diagonal, np.array([1 / corner]))[0]

    def _both_ways(self, own: _Array, theirs: _Array, diagonal: _Array, own_diagonal: _Array) -> _Array:
        """Adds up X B and its transpose from rows of P: the user's, and the sum of the friends'."""
        result = (own + theirs) / diagonal + self._walk(own) / own_diagonal[:, None]
        return np.asarray(-result, np.float32)

    def _walk(self, rows: _Array) -> _Array:
        """Gives rows (U, n) times X."""
        owners = np.repeat(np.arange(self.n_users), self.friends.counts)
        return rows + sum_by_row(rows.T[self.friends.values], owners, n_rows=self.n_users).T

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Gives every array by name, for a safetensors file."""
        arrays: dict[str, NDArray[np.generic]] = {"inverse": self.inverse}
        arrays |= {"friend_values": self.friends.values, "friend_offsets": self.friends.offsets}
        return arrays | self.tastes.to_arrays() | {"settings": np.array(astuple(self.settings))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> FriendModel:
        """Reads what `to_arrays` gave."""
        friends = Lists(np.asarray(arrays["friend_values"]), np.asarray(arrays["friend_offsets"]))
        settings = FriendSettings(*(float(value) for value in arrays["settings"]))
        inverse = np.asarray(arrays["inverse"], np.float32)
        return cls(inverse, friends, Tastes.from_arrays(dict(arrays)), settings)


def mix_cosines(by_items: _Array, by_texts: _Array, *, text_share: float) -> _Array:
    """Gives T of the module's docstring."""
    return np.float32(1 - text_share) * by_items + np.float32(text_share) * by_texts

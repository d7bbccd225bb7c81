"""Friend recommendation: chooses a model on withheld friendships, and gives lists by external ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset
from lora_rec.data.friends import evaluate_on_friends, withhold_friends
from lora_rec.data.lists import Lists
from lora_rec.errors import ArgumentError, DataError, did_you_mean
from lora_rec.pipeline.judge import JUDGED_K, draw_users, mean_ndcg
from lora_rec.rank.friends import FriendModel, FriendSettings
from lora_rec.rank.taste import Tastes, describe_tastes
from lora_rec.train.friends import FriendFit

START_TEXT_SHARE = 0.25
AXES: dict[str, tuple[float, ...]] = {
    "regularisation": (20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
    "taste_weight": (0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
    "text_share": (0.0, 0.25, 0.5, 0.75),
}
N_FITS = 12
WITHHELD_SHARE = 0.1


@dataclass(frozen=True)
class FriendChoice:
    """The numbers that validated best."""

    settings: FriendSettings
    validation: float
    """`ndcg@10` of the withheld friends."""


@dataclass(frozen=True)
class FriendSuggestion:
    """One user of a list."""

    rank: int
    """Place in the list, from 1."""
    user_id: str
    score: float
    """Comparable within one list."""


def choose_friend_settings(
    friends: NDArray[np.int64], tastes: Tastes, *, n_fits: int = N_FITS, seed: int = 0
) -> FriendChoice:
    """Withholds a tenth of the friendships and climbs to the numbers that find them again.

    Args:
        friends: (E, 2), undirected pairs of users.
        tastes: one per user.
        n_fits: at most so many fits; one inverts a matrix of users by users.
        seed: of the draw.

    Raises:
        DataError: there are fewer than ten friendships.
    """
    if len(friends) < 10:
        raise DataError(f"friends: {len(friends)} friendships; a tenth is withheld, so give at least 10")
    known, withheld = withhold_friends(friends, share=WITHHELD_SHARE, seed=seed)
    judged = draw_users(evaluate_on_friends(known, withheld, n_users=len(tastes.histories)))
    fit = FriendFit(known, tastes)
    best = _start(tastes)
    scores: dict[FriendSettings, float] = {}
    settings: FriendSettings | None = best
    while settings is not None and len(scores) < n_fits:
        lists, _ = fit.model(settings).top_k(judged.users, k=JUDGED_K)
        scores[settings] = mean_ndcg(lists, judged)
        best = max(scores, key=scores.__getitem__)
        near = _neighbours(best, with_texts=_start(tastes).text_share > 0)
        settings = next((other for other in near if other not in scores), None)
    return FriendChoice(best, scores[best])


def _start(tastes: Tastes) -> FriendSettings:
    has_texts = tastes.item_vectors.shape[1] > 0
    return FriendSettings(text_share=START_TEXT_SHARE if has_texts else 0.0)


def _neighbours(settings: FriendSettings, *, with_texts: bool) -> list[FriendSettings]:
    """Gives the settings one step away; both weights of the matrix at once first: they rise together."""
    steps = [(1, 1, 0), (-1, -1, 0), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)]
    steps += [(0, 0, 1), (0, 0, -1)] if with_texts else []
    found = []
    for step in steps:
        places = [
            values.index(getattr(settings, name)) + move
            for (name, values), move in zip(AXES.items(), step, strict=True)
        ]
        if all(0 <= place < len(values) for place, values in zip(places, AXES.values(), strict=True)):
            moved = {name: values[place] for place, (name, values) in zip(places, AXES.items(), strict=True)}
            found.append(replace(settings, **moved))
    return found


def fit_friends(
    dataset: Dataset,
    friends: NDArray[np.int64],
    *,
    item_vectors: NDArray[np.float32] | None = None,
    n_fits: int = N_FITS,
    seed: int = 0,
) -> FriendModel:
    """Fits a model of friendships on all that is known, with numbers chosen on withheld friendships.

    Args:
        dataset: what users took, and how often where it knows.
        friends: (E, 2), undirected pairs of internal user ids, e.g. `Published.friends`.
        item_vectors: (N, D), of the items' texts, e.g. those of a bundle.
        n_fits: see `choose_friend_settings`; 0 takes the default numbers.
        seed: of the draw.
    """
    tastes = tastes_of(dataset, item_vectors=item_vectors)
    settings = _start(tastes)
    if n_fits:
        settings = choose_friend_settings(friends, tastes, n_fits=n_fits, seed=seed).settings
    return FriendFit(friends, tastes).model(settings)


def tastes_of(dataset: Dataset, *, item_vectors: NDArray[np.float32] | None = None) -> Tastes:
    """Describes the users of a data set by all that they took."""
    histories = Lists.from_groups(
        dataset.users, dataset.items, n_groups=dataset.n_users, strengths=dataset.strengths
    )
    return describe_tastes(histories, n_items=dataset.n_items, item_vectors=item_vectors)


def recommend_friends(
    model: FriendModel,
    dataset: Dataset,
    user: str | int | None = None,
    *,
    history: Sequence[str | int] = (),
    friends: Sequence[str | int] = (),
    k: int = 10,
) -> list[FriendSuggestion]:
    """Gives the users whom one is likely to know, best first, without those who are friends already.

    Args:
        model: of `fit_friends`.
        dataset: the one that the model was fitted on.
        user: id of a user of the data set; left out for somebody new.
        history: item ids of somebody new.
        friends: user ids of the friends of somebody new.
        k: list length.

    Raises:
        DataError: an unknown id, one string for a list, a user and a history at once, or nothing at all.
        ArgumentError: `k` is below 1.
    """
    if k < 1:
        raise ArgumentError(f"k: {k} is below 1; give the length of the list")
    if (user is None) == (len(history) == 0 and len(friends) == 0):
        raise DataError("recommend_friends: give either a user, or the history or friends of somebody new")
    if user is not None:
        (number,) = find_numbers([user], dataset.user_ids, what="user")
        found, scores = (values[0] for values in model.top_k(np.array([number]), k=k))
    else:
        known = find_numbers(friends, dataset.user_ids, what="user")
        values = model.newcomer_scores(find_numbers(history, dataset.item_ids, what="item"), friends=known)
        values[known] = -np.inf
        found = np.argsort(-values, kind="stable")[:k]
        scores = values[found]
    return [
        FriendSuggestion(place, str(dataset.user_ids[other]), float(score))
        for place, (other, score) in enumerate(zip(found, scores, strict=True), start=1)
        if np.isfinite(score)
    ]


def find_numbers(names: Sequence[str | int], ids: NDArray[np.str_], *, what: str) -> NDArray[np.int64]:
    """Gives the internal numbers of external ids.

    Raises:
        DataError: an id is not there, or one string stands for a list of them.
    """
    if isinstance(names, str):
        raise DataError(f"recommend_friends: {names!r} is one string; give a list of {what} ids")
    wanted = [str(name) for name in names]
    places = {str(name): number for number, name in enumerate(ids)}
    for name in wanted:
        if name not in places:
            hint = did_you_mean(name, places) or f"there are ids like {ids[:3].tolist()}"
            raise DataError(f"recommend_friends: no {what} {name!r}; {hint}")
    return np.array([places[name] for name in wanted], np.int64)

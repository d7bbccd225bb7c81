"""Friends from a recipe: its data, texts read by the frozen user tower, lists with reasons, their test."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.adapter_settings import SETTING_NAMES
from lora_rec.data.dataset import Dataset
from lora_rec.data.friends import withhold_friends
from lora_rec.errors import ArgumentError, DataError
from lora_rec.pipeline.data import load_data
from lora_rec.pipeline.friends import choose_friend_settings, find_numbers, tastes_of
from lora_rec.pipeline.judge_friends import (
    WITHHELD_SHARE,
    Scorer,
    adamic_adar_scorer,
    common_scorer,
    judge_friends,
)
from lora_rec.pipeline.social import read_friendships
from lora_rec.pipeline.sources import open_source
from lora_rec.pipeline.towers import build_tower
from lora_rec.rank.friends import FriendModel
from lora_rec.rank.taste import Tastes
from lora_rec.recipe import Recipe
from lora_rec.text.collate import tokenize
from lora_rec.text.templates import render_items
from lora_rec.towers.two_tower import encode_states
from lora_rec.train.friends import FriendFit

_Ints = NDArray[np.int64]
N_REASONS = 3
USERS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class FriendData:
    """Who took what, who knows whom, and how alike tastes are."""

    dataset: Dataset
    friends: _Ints
    """(E, 2), undirected pairs of internal user ids."""
    tastes: Tastes
    notes: tuple[str, ...]
    """What was left out of the friendships."""


@dataclass(frozen=True)
class ExplainedFriend:
    """A suggested friend, and what the two share."""

    user_id: str
    rank: int
    """Place in the user's list, from 1."""
    friend_id: str
    score: float
    """Comparable within one list."""
    n_shared_friends: int
    shared_friends: str
    """At most three ids, those with the fewest friends first."""
    n_shared_items: int
    shared_items: str
    """At most three titles, the rarest first."""


def read_friend_data(recipe: Recipe) -> FriendData:
    """Reads a recipe's data, and its item texts with the user tower's backbone as it is, through the cache.

    Raises:
        DataError: the recipe names no friendships, or a table is wrong.
    """
    if not recipe.data.has_friends:
        raise DataError(
            "data.friends: the recipe names no friendships; give the path of a table of pairs of users"
        )
    dataset = load_data(recipe.data)
    friendships = read_friendships(recipe.data, dataset)
    vectors = read_frozen(recipe, dataset)
    return FriendData(dataset, friendships.pairs, tastes_of(dataset, item_vectors=vectors), friendships.notes)


def read_frozen(recipe: Recipe, dataset: Dataset) -> NDArray[np.float32]:
    """Gives (N, H), the item texts as the user tower's backbone reads them without any adapter."""
    section = recipe.user_tower
    bare = {name: None for name in (*SETTING_NAMES, "start_from", "start_revision")} | {"adapter": "none"}
    tower = build_tower(type(section)(**(asdict(section) | bare)), width=1, where="user_tower")
    texts = render_items(recipe.text.item_template, dataset.item_fields, where="text.item_template")
    tokens = tokenize(tower.backbone_info.tokenizer, texts, max_tokens=section.max_tokens)
    budget = recipe.train.token_budget
    source = open_source(
        tower, tokens, what="items", prefix_cache=recipe.train.prefix_cache, token_budget=budget
    )
    return encode_states(tower, source, np.arange(len(texts)), token_budget=budget)


def fit_friend_model(data: FriendData, *, seed: int) -> FriendModel:
    """Chooses on withheld friendships, and fits on all."""
    choice = choose_friend_settings(data.friends, data.tastes, seed=seed)
    return FriendFit(data.friends, data.tastes).model(choice.settings)


def explain_friends(
    model: FriendModel, data: FriendData, users: Sequence[str] | None, *, k: int, show_progress: bool = False
) -> Iterator[ExplainedFriend]:
    """Gives the lists of some users, or of all, one row after the other.

    Args:
        model: of `fit_friend_model`.
        data: the same.
        users: external ids; None for everybody.
        k: length of a list.
        show_progress: a bar.

    Raises:
        DataError: an unknown user.
        ArgumentError: k is below 1.
    """
    if k < 1:
        raise ArgumentError(f"k: {k} is below 1; give the length of the list")
    ids = data.dataset.user_ids
    asked = np.arange(len(ids)) if users is None else find_numbers(users, ids, what="user")
    with tqdm(total=len(asked), desc="friends", disable=not show_progress) as bar:
        for start in range(0, len(asked), USERS_AT_ONCE):
            rows = asked[start : start + USERS_AT_ONCE]
            for user, found, scores in zip(rows, *model.top_k(rows, k=k), strict=True):
                for place, (other, score) in enumerate(zip(found, scores, strict=True), start=1):
                    if other >= 0 and np.isfinite(score):
                        yield _explain(model, data, int(user), int(other), place, float(score))
            bar.update(len(rows))


def _explain(
    model: FriendModel, data: FriendData, user: int, other: int, place: int, score: float
) -> ExplainedFriend:
    dataset, tastes = data.dataset, data.tastes
    common = np.intersect1d(model.friends[user], model.friends[other])
    common = common[np.argsort(model.friends.counts[common], kind="stable")]
    items = np.intersect1d(tastes.histories[user], tastes.histories[other])
    items = items[np.argsort(-tastes.rarity[items], kind="stable")]
    titles = dataset.item_fields.get("title") or dataset.item_ids
    return ExplainedFriend(
        user_id=str(dataset.user_ids[user]),
        rank=place,
        friend_id=str(dataset.user_ids[other]),
        score=score,
        n_shared_friends=len(common),
        shared_friends="; ".join(str(dataset.user_ids[one]) for one in common[:N_REASONS]),
        n_shared_items=len(items),
        shared_items="; ".join(str(titles[item]) for item in items[:N_REASONS]),
    )


def write_friends(rows: Iterator[ExplainedFriend], path: str | Path) -> int:
    """Writes a CSV file, one row per suggestion, and gives how many there are.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(ExplainedFriend.__dataclass_fields__))
            writer.writeheader()
            n_rows = 0
            for row in rows:
                writer.writerow(asdict(row))
                n_rows += 1
    except OSError as error:
        raise DataError(f"output: {path} cannot be written ({error.strerror}); name another file") from error
    return n_rows


def compare_friends(data: FriendData, *, seed: int) -> dict[str, dict[str, Any]]:
    """Withholds a tenth of the friendships, and gives `auc` and `ndcg@10` of ours and of two baselines.

    Ours chooses its numbers on a tenth of what is left.
    """
    n_users = data.dataset.n_users
    known, _ = withhold_friends(data.friends, share=WITHHELD_SHARE, seed=seed)
    choice = choose_friend_settings(known, data.tastes, seed=seed)
    scorers: dict[str, Scorer] = {
        "common_neighbours": common_scorer(known, n_users),
        "adamic_adar": adamic_adar_scorer(known, n_users),
        "lora_rec_friends": FriendFit(known, data.tastes).model(choice.settings).scores,
    }
    results = {
        name: judge_friends(scorer, data.friends, n_users=n_users, seed=seed)
        for name, scorer in scorers.items()
    }
    return {
        name: {metric: float(values.mean()) for metric, values in row.items()}
        for name, row in results.items()
    }

"""Friend recommendation, a case of the quality benchmark: Last.fm with a tenth of its friendships withheld.

Every seed is another draw of the withheld friendships. A system knows the rest and what everybody plays, and
is judged by `lora_rec.pipeline.judge_friends`. Ours chooses on a tenth of what is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, System
from quality_sets import FOLDERS
from quality_texts import embed_texts

from lora_rec.data import Dataset
from lora_rec.data.friends import evaluate_on_friends, withhold_friends
from lora_rec.data.publishers import PUBLISHERS, load_published
from lora_rec.pipeline.friends import choose_friend_settings, tastes_of
from lora_rec.pipeline.judge_friends import (
    WITHHELD_SHARE,
    Scorer,
    adamic_adar_scorer,
    common_scorer,
    degree_scorer,
    judge_friends,
)
from lora_rec.text.domains import DOMAINS
from lora_rec.text.templates import render_items
from lora_rec.train.friends import FriendFit

FRIENDS = "lastfm-friends"
_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FriendsSet:
    """What is known before friendships are withheld."""

    name: str
    dataset: Dataset
    friends: _Ints
    """(E, 2)"""
    item_vectors: NDArray[np.float32]
    """(N, D), of the frozen MiniLM."""


def prepare_friends(data_root: Path, cache: Path) -> FriendsSet:
    """Reads Last.fm; arguments are those of `quality_sets.prepare_set`."""
    publisher, folder = FOLDERS["lastfm"]
    published = load_published(publisher, data_root / folder)
    assert published.friends is not None  # the publisher has them
    template = DOMAINS[PUBLISHERS[publisher].domain].item_template
    texts = tuple(render_items(template, published.dataset.item_fields))
    return FriendsSet(FRIENDS, published.dataset, published.friends, embed_texts(texts, cache))


def judged_friends(prepared: FriendsSet, metric: str, seed: int) -> _Ints:
    """Gives the user of each value of `judge_friends`; of a friendship, the first of its two."""
    known, withheld = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
    if metric == "auc":
        return withheld[:, 0]
    return evaluate_on_friends(known, withheld, n_users=prepared.dataset.n_users).users


def _baseline(build: Callable[[_Ints, int], Scorer]) -> System:
    def run(prepared: FriendsSet, seed: int, trials: int) -> Answer:
        known, _ = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
        n_users = prepared.dataset.n_users
        return Answer(judge_friends(build(known, n_users), prepared.friends, n_users=n_users, seed=seed))

    return System(run, lambda prepared: "", seeded=True)  # type: ignore[arg-type]


def run_ours(prepared: FriendsSet, seed: int, trials: int) -> Answer:
    """Chooses on a tenth of the known friendships, and fits again on all of them."""
    known, _ = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
    tastes = tastes_of(prepared.dataset, item_vectors=prepared.item_vectors)
    choice = choose_friend_settings(known, tastes, n_fits=trials, seed=seed)
    model = FriendFit(known, tastes).model(choice.settings)
    results = judge_friends(model.scores, prepared.friends, n_users=prepared.dataset.n_users, seed=seed)
    return Answer(results, asdict(choice.settings), choice.validation, trials)


FRIEND_SYSTEMS: dict[str, System] = {
    "degree": _baseline(degree_scorer),
    "common_neighbours": _baseline(common_scorer),
    "adamic_adar": _baseline(adamic_adar_scorer),
    "lora_rec_friends_frozen": System(run_ours, lambda prepared: "", seeded=True),  # type: ignore[arg-type]
}
"""Each row of `quality` has the draws of the withheld friendships as its seeds."""

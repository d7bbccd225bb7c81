"""Friend recommendation, a case of the quality benchmark: Last.fm with a tenth of its friendships withheld.

Every seed is another draw of the withheld friendships. A system knows the rest and what everybody plays, and
is judged by `lora_rec.pipeline.judge_friends`. Ours chooses on a tenth of what is known. `lora_rec_friends`
reads the items' texts with the user tower after its adapters were trained, `lora_rec_friends_frozen` before.
They are trained on plays alone, with texts that name no friends: those would tell who the withheld ones are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_judge import Answer, System
from quality_sets import RankingSet, prepare_set
from quality_towers import train_without_friends

from lora_rec.data.friends import evaluate_on_friends, withhold_friends
from lora_rec.pipeline.friends import choose_friend_settings, tastes_of
from lora_rec.pipeline.judge_friends import (
    WITHHELD_SHARE,
    Scorer,
    adamic_adar_scorer,
    common_scorer,
    degree_scorer,
    judge_friends,
)
from lora_rec.train.friends import FriendFit

FRIENDS = "lastfm-friends"
_Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FriendsSet:
    """What is known before friendships are withheld."""

    name: str
    plays: RankingSet
    friends: _Ints
    """(E, 2)"""

    @property
    def n_users(self) -> int:
        """Users who play something; friends are some of them."""
        return self.plays.dataset.n_users


def prepare_friends(data_root: Path, cache: Path) -> FriendsSet:
    """Reads Last.fm; arguments are those of `quality_sets.prepare_set`."""
    plays = prepare_set("lastfm", data_root, cache)
    assert isinstance(plays, RankingSet) and plays.friends is not None  # the publisher has them
    return FriendsSet(FRIENDS, plays, plays.friends)


def judged_friends(prepared: FriendsSet, metric: str, seed: int) -> _Ints:
    """Gives the user of each value of `judge_friends`; of a friendship, the first of its two."""
    known, withheld = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
    if metric == "auc":
        return withheld[:, 0]
    return evaluate_on_friends(known, withheld, n_users=prepared.n_users).users


def _baseline(build: Callable[[_Ints, int], Scorer]) -> System:
    def run(prepared: FriendsSet, seed: int, trials: int) -> Answer:
        known, _ = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
        scorer = build(known, prepared.n_users)
        return Answer(judge_friends(scorer, prepared.friends, n_users=prepared.n_users, seed=seed))

    return System(run, lambda prepared: "", seeded=True)  # type: ignore[arg-type]


def run_ours(prepared: FriendsSet, seed: int, trials: int, *, folder: Path | None) -> Answer:
    """Chooses on a tenth of the known friendships, and fits again on all of them.

    Without a folder of trained towers, texts are read by the frozen encoder.
    """
    known, _ = withhold_friends(prepared.friends, share=WITHHELD_SHARE, seed=seed)
    plays = prepared.plays
    vectors = plays.item_vectors if folder is None else train_without_friends(plays, seed, folder)
    tastes = tastes_of(plays.dataset, item_vectors=vectors)
    choice = choose_friend_settings(known, tastes, n_fits=trials, seed=seed)
    model = FriendFit(known, tastes).model(choice.settings)
    results = judge_friends(model.scores, prepared.friends, n_users=prepared.n_users, seed=seed)
    return Answer(results, asdict(choice.settings), choice.validation, trials)


def friend_systems(folder: Path) -> dict[str, System]:
    """Gives the systems by name; towers that were trained before lie in the folder."""
    before, after = (partial(run_ours, folder=where) for where in (None, folder))
    return {
        "degree": _baseline(degree_scorer),
        "common_neighbours": _baseline(common_scorer),
        "adamic_adar": _baseline(adamic_adar_scorer),
        "lora_rec_friends_frozen": System(before, lambda prepared: "", seeded=True),  # type: ignore[arg-type]
        "lora_rec_friends": System(after, lambda prepared: "", seeded=True),  # type: ignore[arg-type]
    }

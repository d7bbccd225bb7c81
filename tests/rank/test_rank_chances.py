import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.rank.chances import Chances, fit_chances
from lora_rec.rank.rerank import rerank_lists
from lora_rec.schema import RankingManifest


def drawn_users(steepness, *, n_users=4000, n=8, seed=0):
    """Users who took a candidate with the chance that its score times the steepness says."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(size=(n_users, n)), axis=1).astype("f4")
    noise = rng.gumbel(size=scores.shape)
    taken = (steepness * scores + noise).argmax(axis=1)
    candidates = np.tile(np.arange(n), (n_users, 1))
    return candidates, scores, Lists.from_arrays([[item] for item in taken])


@pytest.mark.parametrize("steepness", [0.5, 2.0])
def test_the_steepness_that_targets_were_drawn_with_is_found(steepness):
    found = fit_chances(*drawn_users(steepness))
    # The grid has four values to each doubling.
    assert found.steepness == pytest.approx(steepness, rel=0.2)


def test_a_typical_best_candidate_has_relevance_one():
    candidates, scores, targets = drawn_users(1.0)
    relevance = fit_chances(candidates, scores, targets).relevance(scores, candidates >= 0)
    assert np.median(relevance[:, 0]) == pytest.approx(1, rel=1e-3)
    assert (np.diff(relevance, axis=1) <= 0).all()


def test_chances_ignore_the_level_of_scores_and_what_is_missing():
    chances = Chances(2.0, 0.5)
    scores, present = np.array([[3, 2, 1, 9]], "f4"), np.array([[True, True, True, False]])
    whole = chances.relevance(scores, present)
    assert np.allclose(whole, chances.relevance(scores - 100, present), rtol=1e-4)
    assert whole[0, 3] == 0
    assert (whole[0, :3] ** 2 * 0.5).sum() == pytest.approx(1)
    assert chances.relevance(scores, np.zeros((1, 4), bool)).tolist() == [[0] * 4]


@pytest.mark.parametrize("case", ["no target among them", "equal scores", "no candidates"])
def test_scores_that_tell_nothing_give_none(case):
    candidates, scores, targets = drawn_users(1.0, n_users=5)
    if case == "no target among them":
        targets = Lists.from_arrays([[99]] * 5)
    elif case == "equal scores":
        scores = np.ones_like(scores)
    else:
        candidates, scores = np.full_like(candidates, -1), np.full_like(scores, -np.inf)
    assert fit_chances(candidates, scores, targets) is None


@pytest.mark.parametrize("strategy", ["mmr", "msd", "dpp", "ssd", "cover", "novel"])
def test_diversity_is_bought_from_the_user_whose_list_is_a_guess(strategy):
    candidates = np.tile(np.arange(4), (2, 1))
    scores = np.array([[9, 6, 1, 0], [0.9, 0.6, 0.1, 0]], "f4")  # sure, and not
    vectors = np.array([[1, 0], [0.9, 0.44], [0, 1], [0.44, 0.9]], "f4")
    popularity = np.array([1, 1, 0.5, 0], "f4")

    def lists(diversity, chances):
        return rerank_lists(
            candidates,
            scores,
            vectors,
            k=2,
            diversity=diversity,
            strategy=strategy,
            popularity=popularity,
            chances=chances,
            by_relevance=True,
        )[0]

    chances = Chances(1.0, 0.5)
    # Scaled for each user, both lists change at the same strength; by chances, the guess changes first.
    strengths = np.linspace(0, 1, 41)[:-1]

    def first_change(user, chances):
        return next((d for d in strengths if lists(d, chances)[user].tolist() != [0, 1]), 1.0)

    assert first_change(0, None) == first_change(1, None)
    assert first_change(1, chances) < first_change(0, chances)


def test_zero_is_the_relevance_order_and_one_ignores_it():
    rng = np.random.default_rng(1)
    scores = -np.sort(-rng.normal(size=(6, 30)), axis=1).astype("f4")
    candidates, vectors = np.tile(np.arange(30), (6, 1)), rng.normal(size=(30, 5)).astype("f4")
    for strategy in ("mmr", "msd", "dpp", "ssd"):
        for diversity in (0.0, 1.0):
            scaled, by_chances = (
                rerank_lists(
                    candidates, scores, vectors, k=5, diversity=diversity, strategy=strategy, chances=chances
                )[0]
                for chances in (None, Chances(2.0, 0.4))
            )
            assert (scaled == by_chances).all()


def test_a_bundle_without_them_has_none():
    old = RankingManifest("mmr", 100)
    assert Chances.of(old) is None
    assert Chances.of(RankingManifest("mmr", 100, steepness=2.0, typical_chance=0.1)) == Chances(2.0, 0.1)

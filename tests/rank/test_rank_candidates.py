import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.errors import DataError
from lora_rec.rank.candidates import CandidateScorer, project

GENERATOR = np.random.default_rng(0)
TEXT = GENERATOR.normal(size=(9, 6)).astype("f4")
MEAN = TEXT.mean(axis=0)
PROJECTION = GENERATOR.normal(size=(6, 4)).astype("f4")
HISTORIES = Lists.from_arrays([[3, 1, 4, 1, 5], [], [2]])
CANDIDATES = Lists.from_arrays([[0, 8], [7, 2, 6], []])


def make_scorer(**settings):
    numbers = {"sharpness": 2.5, "history_weight": 7.0, "new_item_bias": 0.25, "history_length": 3}
    return CandidateScorer(
        project(TEXT, MEAN, PROJECTION),
        np.arange(9, dtype="f4") / 10,
        MEAN,
        PROJECTION,
        **(numbers | settings),
    )


def test_scores_are_the_formula():
    scorer = make_scorer()
    found = scorer.scores(HISTORIES, CANDIDATES)
    assert found.dtype == np.float32
    cosines = scorer.items[[0, 8]] @ scorer.items[[4, 1, 5]].T  # the newest three
    weights = np.exp(2.5 * cosines) / np.exp(2.5 * cosines).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:2], 7 * (weights * cosines).sum(axis=1) + [0, 0.8], rtol=1e-5)
    # An empty history leaves the biases.
    np.testing.assert_allclose(found[2:], [0.7, 0.2, 0.6], rtol=1e-6)


def test_the_sharpest_attention_sees_the_nearest_item_alone():
    scorer = make_scorer(sharpness=1e4, history_weight=1.0)
    away = np.argmin((scorer.items @ scorer.items[[4, 1, 5]].T).max(axis=1))
    found = scorer.scores(Lists.from_arrays([[4, 1, 5]]), Lists.from_arrays([[away]]))
    nearest = (scorer.items[[4, 1, 5]] @ scorer.items[away]).max()
    np.testing.assert_allclose(found, nearest + scorer.item_bias[away], rtol=1e-5)


def test_a_new_item_is_scored_as_its_text_says():
    scorer = make_scorer()
    more = scorer.with_items(TEXT[:2])
    known = scorer.scores(HISTORIES, Lists.from_arrays([[0, 1]] * 3))
    new = more.scores(HISTORIES, Lists.from_arrays([[9, 10]] * 3))
    # The same texts, so the scores differ by the biases alone.
    np.testing.assert_allclose(new - 0.25, known - np.tile([0, 0.1], 3), atol=1e-5)
    np.testing.assert_array_equal(more.scores(HISTORIES, CANDIDATES), scorer.scores(HISTORIES, CANDIDATES))


def test_save_and_load_give_the_same_scores():
    scorer = make_scorer()
    again = CandidateScorer.from_arrays(scorer.to_arrays())
    # Items are kept in half precision: 1e-3 of a cosine, times the weight of the history.
    expected = scorer.scores(HISTORIES, CANDIDATES)
    np.testing.assert_allclose(again.scores(HISTORIES, CANDIDATES), expected, atol=7e-3)
    assert again.history_length == 3
    np.testing.assert_array_equal(again.with_items(TEXT).item_bias, scorer.with_items(TEXT).item_bias)


def test_a_sharp_attention_does_not_overflow():
    scorer = make_scorer(sharpness=500.0, history_weight=1.0, history_length=50)
    found = scorer.scores(HISTORIES.take([0]), CANDIDATES.take([0]))
    nearest = (scorer.items[[0, 8]] @ scorer.items[[3, 1, 4, 5]].T).max(axis=1)
    np.testing.assert_allclose(found, nearest + [0, 0.8], atol=1e-2)


def test_what_is_not_known_is_refused():
    scorer = make_scorer()
    with pytest.raises(DataError, match="candidates: 2 lists for 3 histories; give one each"):
        scorer.scores(HISTORIES, CANDIDATES.take([0, 1]))
    with pytest.raises(DataError, match=r"histories: item 9 is outside 0\.\.8; add new items by with_items"):
        scorer.scores(Lists.from_arrays([[9]]), Lists.from_arrays([[0]]))
    with pytest.raises(DataError, match=r"candidates: item -1 is outside 0\.\.8"):
        scorer.scores(Lists.from_arrays([[0]]), Lists.from_arrays([[-1]]))
    with pytest.raises(DataError, match=r"text_vectors: shape \(2, 5\); give \(M, 6\)"):
        scorer.with_items(np.ones((2, 5), "f4"))

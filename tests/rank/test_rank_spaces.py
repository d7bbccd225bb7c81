import numpy as np
import pytest

from lora_rec.errors import BundleError
from lora_rec.rank.spaces import ItemSpaces, choose_novel, popularity_of
from lora_rec.schema import STRATEGIES

CANDIDATES = np.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, -1, -1]])
SCORES = np.array([[6, 5, 4, 3, 2, 1], [4, 3, 2, 1, -np.inf, -np.inf]], "f4")
BY_TEXT = np.repeat(np.eye(2, dtype="f4"), 3, axis=0)  # 0-2 and 3-5
BY_USERS = np.tile(np.eye(2, dtype="f4"), (3, 1))  # even and odd
SPACES = ItemSpaces(BY_TEXT, BY_USERS, popularity_of(np.array([99, 50, 20, 5, 1, 0])))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_zero_keeps_the_relevance_order(strategy):
    items, scores = SPACES.choose(CANDIDATES, SCORES, k=3, diversity=0.0, strategy=strategy, space="text")
    assert items.tolist() == [[0, 1, 2], [5, 4, 3]]
    assert scores.tolist() == [[6, 5, 4], [4, 3, 2]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_best_stands_first_at_any_strength(strategy):
    for diversity in (0.3, 1.0):
        items, scores = SPACES.choose(
            CANDIDATES, SCORES, k=5, diversity=diversity, strategy=strategy, space="both"
        )
        assert (np.diff(scores[0]) < 0).all()
        assert items[1, 4] == -1
        assert np.isneginf(scores[1, 4])


def test_a_space_says_what_is_alike():
    def pairs(space):
        return SPACES.choose(CANDIDATES[:1], SCORES[:1], k=2, diversity=1.0, strategy="mmr", space=space)[0]

    assert {int(i) // 3 for i in pairs("text")[0]} == {0, 1}
    assert {int(i) % 2 for i in pairs("factors")[0]} == {0, 1}
    first, second = pairs("both")[0]
    assert first // 3 != second // 3
    assert first % 2 != second % 2


def test_novel_takes_what_few_took():
    popularity = popularity_of(np.array([99, 50, 20, 5, 1, 0]))
    items, _ = choose_novel(CANDIDATES, SCORES, popularity, k=3, diversity=1.0)
    assert items.tolist() == [[5, 4, 3], [5, 4, 3]]
    with pytest.raises(ValueError, match="diversity: 2 is not in"):
        choose_novel(CANDIDATES, SCORES, popularity, k=3, diversity=2)


def test_what_is_missing_or_unknown_is_said(tmp_path):
    with pytest.raises(ValueError, match="space: 'genre' is unknown; give one of text, factors, both"):
        SPACES.vectors("genre")
    ItemSpaces(BY_TEXT).save(tmp_path)
    old = ItemSpaces.load(tmp_path)
    assert old.names == ("text",)
    with pytest.raises(BundleError, match="no factor vectors for 'both'; run its recipe again"):
        old.vectors("both")
    with pytest.raises(BundleError, match="cannot tell 'novel' items; run its recipe again"):
        old.choose(CANDIDATES, SCORES, k=2, diversity=0.5, strategy="novel", space="text")


def test_what_is_saved_is_read_again(tmp_path):
    SPACES.save(tmp_path)
    again = ItemSpaces.load(tmp_path)
    assert (again.vectors("both") == SPACES.vectors("both")).all()
    assert np.allclose(again.popularity, SPACES.popularity, atol=1e-3)

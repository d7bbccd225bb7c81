import numpy as np
import pytest

from lora_rec.errors import BundleError
from lora_rec.rank.categories import Categories
from lora_rec.rank.rules import Quotas
from lora_rec.rank.spaces import ItemSpaces, popularity_of
from lora_rec.schema import STRATEGIES

CANDIDATES = np.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, -1, -1]])
SCORES = np.array([[6, 5, 4, 3, 2, 1], [4, 3, 2, 1, -np.inf, -np.inf]], "f4")
BY_TEXT = np.repeat(np.eye(2, dtype="f4"), 3, axis=0)  # 0-2 and 3-5
BY_USERS = np.tile(np.eye(2, dtype="f4"), (3, 1))  # even and odd
CATEGORIES = {
    "category_weights": np.eye(6, dtype="f4"),
    "history_mix": np.array([[0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]], "f4"),
}
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
            CANDIDATES, SCORES, k=5, diversity=diversity, strategy=strategy, space="both", **CATEGORIES
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
    found, _ = SPACES.choose(CANDIDATES, SCORES, k=3, diversity=1.0, strategy="novel", space="text")
    assert found.tolist() == [[3, 4, 5], [5, 4, 3]]
    categories = Categories.from_field(["war"] * 4 + ["love"] * 2)
    rules = Quotas.of({"love": (None, 1)}, categories, k=3)
    found, _ = SPACES.choose(
        CANDIDATES[:1], SCORES[:1], k=3, diversity=1.0, strategy="novel", space="text", quotas=rules
    )
    assert found.tolist() == [[2, 3, 5]]


def test_what_is_drawn_never_stands_first():
    for seed in range(9):
        found, _ = SPACES.choose(
            CANDIDATES[:1],
            SCORES[:1],
            k=3,
            diversity=1.0,
            strategy="novel",
            space="text",
            explore=0.5,
            seed=seed,
        )
        # The list is 3, 4, 5 and what is drawn is more relevant.
        assert found[0, 0] == 3
        assert len({0, 1, 2} & set(found[0])) == 2


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

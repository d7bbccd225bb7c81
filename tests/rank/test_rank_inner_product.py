"""The head taken apart scores and ranks as the head does, on one with every part."""

from dataclasses import replace

import numpy as np
import pytest
from rank_heads import HISTORIES, every_part, make_head

from lora_rec.data.lists import Lists
from lora_rec.rank.head import RankingHead
from lora_rec.rank.inner_product import HeadVectors
from lora_rec.rank.search import top_k

HEADS = {
    "every part": every_part,
    "no new items": make_head,
    "the linear part": lambda: RankingHead(make_head().linear, popularity=np.arange(20, dtype=np.float32)),
    "new items that nobody is near": lambda: replace(
        every_part(), linear=replace(every_part().linear, weights=np.zeros((20, 12), np.float32))
    ),
}


def exact(parts, n_searches=None):
    """Searches all items' vectors as an index would."""
    vectors = parts.items(np.arange(parts.head.n_items))

    def search(users, n):
        if n_searches is not None:
            n_searches.append(n)
        return top_k(users, vectors, k=n)

    return search


@pytest.mark.parametrize("name", HEADS)
def test_products_and_additions_are_the_scores(name):
    head, known = HEADS[name](), HISTORIES.take(np.flatnonzero(HISTORIES.counts))
    parts = HeadVectors(head)
    users = parts.users(known)
    scores = users.vectors @ parts.items(np.arange(20)).T
    for user, (items, additions) in enumerate(zip(users.items, users.additions, strict=True)):
        assert len(np.unique(items)) == len(items)
        scores[user, items] += additions
    np.testing.assert_allclose(scores, head.scores(known), atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_lists_are_those_of_the_head(name):
    head = HEADS[name]()
    parts = HeadVectors(head)
    items, scores = parts.top_k(HISTORIES, k=6, search=exact(parts))
    expected_items, expected = head.top_k(HISTORIES, k=6)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    if name == "every part":  # no two scores are equal
        assert items.tolist() == expected_items.tolist()
    if name == "the linear part":
        assert items[HISTORIES.counts == 0].tolist() == [[19, 18, 17, 16, 15, 14]] * 4


def test_user_embeddings_reach_the_sequence_part():
    parts = HeadVectors(every_part())
    embeddings = np.random.default_rng(1).normal(size=(30, 4)).astype("f4")
    _, scores = parts.top_k(HISTORIES, k=6, search=exact(parts), user_embeddings=embeddings)
    np.testing.assert_allclose(
        scores, parts.head.top_k(HISTORIES, k=6, user_embeddings=embeddings)[1], atol=1e-4
    )


def test_more_is_asked_for_where_the_history_takes_up_the_best():
    parts = HeadVectors(make_head())
    best, _ = exact(parts)(parts.users(Lists.from_arrays([[0]])).vectors, 8)
    asked = []
    history = Lists.from_arrays([best[0]])
    items, scores = parts.top_k(history, k=2, search=exact(parts, asked))
    assert len(asked) > 1
    np.testing.assert_allclose(scores, parts.head.top_k(history, k=2)[1], atol=1e-4)
    assert not np.isin(items, best).any()


def test_a_list_ends_where_nothing_is_left():
    parts = HeadVectors(make_head())
    items, scores = parts.top_k(Lists.from_arrays([np.arange(18)]), k=5, search=exact(parts))
    assert sorted(items[0, :2].tolist()) == [18, 19]
    assert items[0, 2:].tolist() == [-1] * 3
    assert np.isneginf(scores[0, 2:]).all()


def test_what_is_not_allowed_is_not_given():
    parts = HeadVectors(every_part())
    vectors = parts.items(np.arange(20))

    def even(users, n):
        items, scores = top_k(users, vectors[::2], k=min(n, 10))
        return np.where(items < 0, -1, 2 * items), scores

    items, _ = parts.top_k(HISTORIES, k=4, search=even, allow=lambda items: items % 2 == 0, most=10)
    mask = np.arange(20) % 2 == 0
    assert items.tolist() == parts.head.top_k(HISTORIES, k=4, allowed=mask)[0].tolist()

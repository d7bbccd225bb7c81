import numpy as np

from lora_rec.data import Lists
from lora_rec.rank.taste import describe_tastes

HISTORIES = Lists.from_arrays([[0, 1], [0, 2], [], [0]], [[3, 1], [3, 7], [], [7]])


def test_cosines_by_hand():
    tastes = describe_tastes(HISTORIES, n_items=3)
    # Three of four users have item 0, one has each of the others; a strength counts log(1 + s).
    common, rare = np.log(4 / 3), np.log(4)
    first = np.array([np.log(4) * common, np.log(2) * rare])
    second = np.array([np.log(4) * common, np.log(8) * rare])
    shared = first[0] * second[0] / np.linalg.norm(first) / np.linalg.norm(second)
    by_items, by_texts = tastes.own_cosines()
    np.testing.assert_allclose(by_items[0], [1, shared, 0, first[0] / np.linalg.norm(first)], rtol=1e-5)
    assert not by_items[2].any()
    assert not by_texts.any()


def test_texts_bring_together_who_took_other_items():
    vectors = np.array([[1, 0, 0.1], [0.9, 0.1, 0], [0, 1, 0], [0, 0.8, 0.3]], "f4")
    tastes = describe_tastes(Lists.from_arrays([[0], [1], [2], [3]]), n_items=4, item_vectors=vectors)
    by_items, by_texts = tastes.own_cosines()
    assert np.array_equal(by_items, np.eye(4, dtype="f4"))
    assert by_texts[0, 1] > 0.5 > 0 > by_texts[0, 2]


def test_users_compared_alone_are_as_among_all():
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype("f4")
    tastes = describe_tastes(HISTORIES, n_items=3, item_vectors=vectors)
    for both, own in zip(tastes.cosines(HISTORIES), tastes.own_cosines(), strict=True):
        np.testing.assert_allclose(both, own, atol=1e-6)
    assert not tastes.own_cosines()[1][2].any()


def test_repeats_add_up_and_cosines_stay_cosines():
    tastes = describe_tastes(Lists.from_arrays([[0, 0, 1, 0], [1, 2], [0, 1]]), n_items=3)
    rarity = np.log(3 / np.array([2, 3, 1]))
    first = rarity * [3, 1, 0]
    third = rarity * [1, 1, 0]
    by_items, _ = tastes.own_cosines()
    np.testing.assert_allclose(by_items.diagonal(), 1, rtol=1e-6)
    cosine = first @ third / np.linalg.norm(first) / np.linalg.norm(third)
    np.testing.assert_allclose(by_items[0, 2], cosine, rtol=1e-6)

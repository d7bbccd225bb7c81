import numpy as np

from lora_rec.rank.new_items import find_neighbours, no_new_items

TEXTS = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0], [1, 0.05]], np.float32)
NEW = np.array([False, False, False, False, True])


def test_a_new_item_scores_like_the_known_items_with_the_nearest_texts():
    table = find_neighbours(TEXTS, NEW, n_neighbours=2)
    assert sorted(table.neighbours[0].tolist()) == [0, 1]
    np.testing.assert_allclose(table.weights.sum(axis=1), 1, rtol=1e-6)
    scores = np.array([[3.0, 1.0, 0.0, -4.0, 99.0]], np.float32)
    table.fill(scores)
    assert 1.0 < scores[0, 4] < 3.0
    assert scores[0, :4].tolist() == [3.0, 1.0, 0.0, -4.0]


def test_the_factor_stretches_away_from_the_mean_of_the_known_items():
    scores = np.array([[3.0, 1.0, 0.0, -4.0, 99.0]], np.float32)  # their mean is 0
    plain, wide = scores.copy(), scores.copy()
    find_neighbours(TEXTS, NEW, n_neighbours=2).fill(plain)
    find_neighbours(TEXTS, NEW, n_neighbours=2, factor=3.0).fill(wide)
    np.testing.assert_allclose(wide[0, 4], 3 * plain[0, 4], rtol=1e-5)


def test_many_new_items_are_filled_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    texts, new = rng.normal(size=(60, 5)).astype("f4"), np.arange(60) % 3 == 0
    scores = rng.normal(size=(4, 60)).astype("f4")
    whole, pieces = scores.copy(), scores.copy()
    find_neighbours(texts, new, n_neighbours=32).fill(whole)
    monkeypatch.setattr("lora_rec.rank.new_items.CELLS_AT_ONCE", 200)
    find_neighbours(texts, new, n_neighbours=32).fill(pieces)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)
    assert (whole[:, new] != scores[:, new]).all()


def test_without_new_or_without_known_items_nothing_is_filled():
    scores = np.ones((2, 5), np.float32)
    for table in (
        no_new_items(),
        find_neighbours(TEXTS, ~NEW & NEW, n_neighbours=2),
        find_neighbours(TEXTS, NEW | True, n_neighbours=2),
    ):
        table.fill(scores)
    assert (scores == 1).all()

import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.rank import item_item, linear
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import _decompose_large, centre, decompose


def random_histories(n_users=40, n_items=15):
    generator = np.random.default_rng(0)
    return Lists.from_arrays(
        [generator.permutation(n_items)[: generator.integers(1, 8)] for _ in range(n_users)]
    )


def dense_ease(rows, regularisation):
    inverse = np.linalg.inv(rows.T @ rows + regularisation * np.eye(rows.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("n_users", [6, 40])
@pytest.mark.parametrize("with_text", [False, True])
def test_equals_the_textbook_formula(n_users, with_text):
    histories, n_items = random_histories(n_users), 15
    matrix = np.zeros((n_users, n_items))
    for user, history in enumerate(histories):
        matrix[user, history] = 1
    text = centre(np.random.default_rng(1).normal(size=(n_items, 4)).astype("f4"))
    arguments = {"text_vectors": text, "text_weight": 2.0} if with_text else {}
    rows = np.vstack([matrix, 2 * text.T]) if with_text else matrix
    model = decompose(histories, n_items=n_items, **arguments).model(regularisation=3.0, decay=0.8)
    scores = model.user_vectors(histories) @ model.item_vectors().T
    for user, history in enumerate(histories):
        recency = np.zeros(n_items)
        recency[history] = 0.8 ** np.arange(len(history))[::-1]
        outside = np.setdiff1d(np.arange(n_items), history)
        expected = recency @ dense_ease(rows, 3.0)
        np.testing.assert_allclose(scores[user, outside], expected[outside], atol=1e-4)


def test_the_large_form_agrees_with_the_exact_one(monkeypatch):
    histories = random_histories()
    users, items = np.repeat(np.arange(40), histories.counts), histories.values
    weights = histories.relative_strengths()
    large = _decompose_large(users, items, weights, None, n_users=40, n_items=15, rank=15, seed=0)
    exact = decompose(histories, n_items=15)
    np.testing.assert_allclose(large.values, exact.values, rtol=1e-3)
    for at_once in (1, 9):  # a user is in one part, however many entries that takes
        monkeypatch.setattr(linear, "ENTRIES_AT_ONCE", at_once)
        parted = _decompose_large(users, items, weights, None, n_users=40, n_items=15, rank=15, seed=0)
        np.testing.assert_allclose(parted.values, large.values, rtol=1e-3)


def test_an_empty_history_scores_nothing():
    model = decompose(random_histories(), n_items=15).model(regularisation=1.0, decay=0.9)
    assert not model.user_vectors(Lists.from_arrays([[], [1]]))[0].any()


def test_a_few_histories_at_a_time_add_up_to_the_same(monkeypatch):
    generator, histories = np.random.default_rng(0), random_histories()
    neighbours = np.stack([generator.permutation(15)[:6] for _ in range(15)]).astype(np.int32)
    model = ItemItemModel(neighbours, generator.normal(size=(15, 6)).astype(np.float32), decay=1.0)
    whole = model.scores(histories)
    for at_once in (1, 9):
        monkeypatch.setattr(item_item, "ROWS_AT_ONCE", at_once)
        np.testing.assert_array_equal(model.scores(histories), whole)

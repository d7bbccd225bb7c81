"""The linear part of the head: closed form, nearness, texts, and the table that is served."""

import numpy as np
import pytest

from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.linear import centre
from lora_rec.train import item_item
from lora_rec.train.item_item import ExactFit, FactorFit, ItemItemSettings, count_pairs, prepare_fit

N_ITEMS = 15
TEXT = centre(np.random.default_rng(1).normal(size=(N_ITEMS, 4)).astype("f4"))


def random_histories(n_users=40):
    generator = np.random.default_rng(0)
    return Lists.from_arrays(
        [generator.permutation(N_ITEMS)[: generator.integers(1, 8)] for _ in range(n_users)]
    )


def dense_weights(gram, regularisation):
    inverse = np.linalg.inv(gram + regularisation * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def dense_pairs(histories, nearness):
    gram = np.zeros((N_ITEMS, N_ITEMS))
    for history in histories:
        for i, first in enumerate(history):
            for j, second in enumerate(history):
                gram[first, second] += 1 if nearness is None else 1 / (1 + abs(i - j) / nearness)
    return gram


@pytest.mark.parametrize("nearness", [None, 0.5, 5.0])
def test_pairs_count_by_nearness(nearness):
    histories = random_histories()
    expected = dense_pairs(histories, nearness)
    got = count_pairs(histories, n_items=N_ITEMS, nearness=nearness)
    if nearness == 0.5:  # histories are shorter than 20 times the others
        assert np.abs(got - expected).max() < 0.05 * expected.max()
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert np.linalg.eigvalsh(got.astype("f8"))[0] > -1e-3


@pytest.mark.parametrize("text_weight", [0.0, 3.0])
@pytest.mark.parametrize(("form", "nearness"), [(ExactFit, 5.0), (ExactFit, None), (FactorFit, None)])
def test_equals_the_textbook_formula(form, nearness, text_weight):
    histories = random_histories()
    fit = form(histories, n_items=N_ITEMS, text_vectors=TEXT)
    settings = ItemItemSettings(nearness=nearness, regularisation=3.0, text_weight=text_weight)
    model = ItemItemModel(*fit.table(settings, n_neighbours=N_ITEMS), decay=0.8)
    weights = dense_weights(dense_pairs(histories, nearness) + text_weight * TEXT @ TEXT.T, 3.0)
    for scores, history in zip(model.scores(histories), histories, strict=True):
        recency = np.zeros(N_ITEMS)
        recency[history] = 0.8 ** np.arange(len(history))[::-1]
        np.testing.assert_allclose(scores, recency @ weights, atol=2e-4)


def test_the_strongest_weights_are_kept():
    fit = prepare_fit(random_histories(), n_items=N_ITEMS)
    settings = ItemItemSettings(nearness=5.0, regularisation=3.0, text_weight=0.0)
    items, weights = fit.table(settings, n_neighbours=4)
    dense = dense_weights(dense_pairs(random_histories(), 5.0), 3.0)
    assert items.shape == weights.shape == (N_ITEMS, 4)
    np.testing.assert_allclose(
        np.sort(np.abs(weights), axis=1), np.sort(np.abs(dense), axis=1)[:, -4:], rtol=1e-3
    )


def test_a_large_catalogue_takes_the_factors(monkeypatch):
    monkeypatch.setattr(item_item, "EXACT_ITEMS", N_ITEMS - 1)
    assert isinstance(prepare_fit(random_histories(), n_items=N_ITEMS), FactorFit)


def test_an_item_that_nobody_took_is_reached_by_its_text():
    histories = Lists.from_arrays([[0, 1], [1, 2], [0, 2]] * 5)
    text = centre(np.array([[1, 0.1], [0, 1], [-1, 0], [1, 0]], dtype="f4"))  # item 3 reads like item 0
    fit = ExactFit(histories, n_items=4, text_vectors=text)
    settings = ItemItemSettings(nearness=None, regularisation=1.0, text_weight=5.0)
    model = ItemItemModel(*fit.table(settings, n_neighbours=4), decay=1.0)
    scores = model.scores(Lists.from_arrays([[0], [2]]))
    assert scores[0, 3] > 0 > scores[1, 3]


def test_an_empty_history_scores_nothing():
    fit = prepare_fit(random_histories(), n_items=N_ITEMS)
    settings = ItemItemSettings(nearness=5.0, regularisation=3.0, text_weight=0.0)
    model = ItemItemModel(*fit.table(settings, n_neighbours=4), decay=0.9)
    assert not model.scores(Lists.from_arrays([[], [1]]))[0].any()


def test_a_matrix_that_cannot_be_inverted_says_what_to_do():
    fit = ExactFit(random_histories(), n_items=N_ITEMS)
    settings = ItemItemSettings(nearness=5.0, regularisation=-100.0, text_weight=0.0)
    with pytest.raises(TrainingError, match="cannot be inverted; leave out"):
        fit.table(settings, n_neighbours=4)


def with_strengths(histories):
    return Lists(
        histories.values, histories.offsets, np.random.default_rng(3).integers(1, 99, len(histories.values))
    )


def test_strengths_weigh_items_in_both_forms_of_the_fit():
    histories = with_strengths(random_histories())
    matrix = np.zeros((len(histories), N_ITEMS))
    rows = np.repeat(np.arange(len(histories)), histories.counts)
    matrix[rows, histories.values] = histories.relative_strengths()
    expected = dense_weights(matrix.T @ matrix, 3.0)
    settings = ItemItemSettings(nearness=None, regularisation=3.0, text_weight=0.0)
    for form in (ExactFit, FactorFit):
        columns, weights = form(histories, n_items=N_ITEMS).table(settings, n_neighbours=N_ITEMS)
        got = np.zeros((N_ITEMS, N_ITEMS))
        np.put_along_axis(got, columns.astype(int), weights, axis=1)
        np.testing.assert_allclose(got, expected, atol=2e-4)


def test_a_history_scores_by_its_strengths():
    histories = with_strengths(random_histories())
    settings = ItemItemSettings(nearness=None, regularisation=3.0, text_weight=0.0)
    table = prepare_fit(histories, n_items=N_ITEMS).table(settings, n_neighbours=N_ITEMS)
    model = ItemItemModel(*table, decay=0.9)
    user = int(np.argmax(histories.counts))
    alone = [model.scores(Lists.from_arrays([[item]]))[0] for item in histories[user]]
    start, stop = histories.offsets[user : user + 2]
    recency = 0.9 ** np.arange(stop - start)[::-1]
    expected = (histories.relative_strengths()[start:stop] * recency) @ np.array(alone)
    np.testing.assert_allclose(model.scores(histories.take([user]))[0], expected, rtol=1e-4, atol=1e-6)

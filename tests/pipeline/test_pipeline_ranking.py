"""Baselines are as strong, and take as little, on large data as on small."""

import numpy as np
import pytest
from test_pipeline_head import N_ITEMS, by_topic, make, over_a_month

from lora_rec.pipeline import ranking
from lora_rec.pipeline.ranking import Comparison, choose_ease, choose_linear
from lora_rec.pipeline.spaces import factor_ruler
from lora_rec.rank import linear


def compare(split, choice):
    comparison = Comparison(split, ruler=None, factors=factor_ruler(split), k=5)
    comparison.add_baselines(choice)
    return comparison.lists


def test_where_factors_are_cut_off_the_baseline_is_ease_itself(monkeypatch):
    split = make(by_topic, over_a_month)
    whole = choose_linear(split)
    assert whole.rank is None and choose_ease(split, whole) == whole
    expected = compare(split, whole)["ease"]
    monkeypatch.setattr(linear, "EXACT_ROWS", 1)
    monkeypatch.setattr(linear.decompose, "__kwdefaults__", linear.decompose.__kwdefaults__ | {"max_rank": 8})
    cut = choose_linear(split)
    assert cut.rank == 8
    chosen = choose_ease(split, cut)
    assert (chosen.rank, chosen.regularisation, chosen.decay) == (None, whole.regularisation, whole.decay)
    assert chosen.validation == pytest.approx(whole.validation, abs=1e-6)
    found = compare(split, chosen)["ease"]
    assert (found == expected).mean() > 0.99  # but for ties
    monkeypatch.setattr(ranking, "EXACT_ITEMS", N_ITEMS - 1)
    assert choose_ease(split, cut) == cut
    assert (compare(split, cut)["ease"] != expected).any()


def test_item_cosine_is_that_of_who_took_what_and_left_out_above_so_many_items(monkeypatch, caplog):
    split = make(by_topic, over_a_month)
    choice = choose_linear(split)
    known, test = split.refit_histories(), split.test.histories
    matrix = np.zeros((len(known), N_ITEMS))
    matrix[np.repeat(np.arange(len(known)), known.counts), known.values] = 1
    matrix /= np.sqrt(np.maximum(matrix.sum(axis=0), 1))
    wanted = np.stack([(matrix.T @ matrix)[history].sum(axis=0) for history in test])
    for row, history in enumerate(test):
        wanted[row, history] = -np.inf
    expected = np.argsort(-wanted, axis=1, kind="stable")[:, :5]
    assert (compare(split, choice)["item_cosine"] == expected).mean() > 0.99  # but for ties
    monkeypatch.setattr(ranking, "EXACT_ITEMS", N_ITEMS - 1)
    assert "item_cosine" not in compare(split, choice)
    assert "item_cosine is left out: it is for up to 59 items" in caplog.text

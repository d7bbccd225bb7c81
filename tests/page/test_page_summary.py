"""The summary says what is worse like what is better, and what is not known."""

from dataclasses import replace

import pytest

from lora_rec.metrics import PairedDifference
from lora_rec.page.run import read_run
from lora_rec.page.summary import summarise
from lora_rec.pipeline.evidence import PairedTest
from lora_rec.pipeline.slices import POPULARITY, Slice


def said(bundle, *, tuned=(0.0, 0.0, 0.0), head=(0.0, 0.0, 0.0), rows=None, slices=()):
    """Gives the summary of a run with these differences: mean and interval."""
    ndcg = {
        "popularity": 0.01,
        "item_cosine": 0.1,
        "ease": 0.2,
        "frozen_towers": 0.05,
        "trained_towers": 0.05 + tuned[0],
        "ranking_head": 0.2 + head[0],
        "ranking_head_diverse": 0.19,
    }
    tests = (
        PairedTest("trained_towers", "frozen_towers", "ndcg@10", *tuned, 60, 0.001),
        PairedTest("ranking_head", "ease", "ndcg@10", *head, 60, 0.001),
    )
    numbers = rows or {name: {"ndcg@10": value, "ild_factors@10": 0.8} for name, value in ndcg.items()}
    return " ".join(summarise(replace(read_run(bundle), rows=numbers, tests=tests, slices=slices)))


@pytest.mark.parametrize(
    ("difference", "towers", "head"),
    [
        ((0.02, 0.01, 0.03), "made the two towers better", "is better than EASE"),
        ((-0.02, -0.03, -0.01), "made the two towers worse", "is worse than EASE"),
        ((0.02, -0.01, 0.05), "by no more than chance may", "is not surely different from EASE"),
    ],
)
def test_better_worse_and_unsure(make_bundle, difference, towers, head):
    kept = make_bundle("kept", ranking={"keep": 0.5, "n_candidates": 20})  # its adapters were kept
    text = said(kept, tuned=difference, head=difference)
    assert towers in text and head in text
    assert f"ndcg@10 {0.2 + difference[0]:.4f} instead of 0.2000" in text
    assert "Alone the towers stay below EASE" in text
    assert "ndcg@10 by " in text


def test_parts_where_it_is_worse_are_named(bundle):
    parts = [("rare", 0.01, 0.02, 0.01), ("middle", -0.01, 0.02, 0.01), ("head", -0.03, -0.01, 0.03)]
    parts.append(("five users", 0.01, 0.09, 0.06))  # too few for a sign-flip test to reject
    slices = tuple(
        Slice(POPULARITY, name, 9, {}, PairedDifference((low + high) / 2, low, high, 9), p_value)
        for name, low, high, p_value in parts
    )
    text = said(bundle, slices=slices)
    assert "In 1 of 4 parts of the users ranking head, by relevance is surely above EASE" in text
    assert text.endswith("in 1 surely below it: head.")


def test_what_was_not_measured_is_not_said(bundle):
    text = said(bundle, rows={"ease": {"ndcg@10": 0.1}})
    assert "Fine-tuning" not in text and "ranking head" not in text

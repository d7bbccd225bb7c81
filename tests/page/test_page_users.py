"""The test users ranked for again: as the run ranked, as the bundle serves, and who is shown."""

import json
import shutil

import numpy as np
import pytest

import lora_rec
from lora_rec.metrics import ndcg_at_k, recall_at_k
from lora_rec.page.data import find_data, read_data
from lora_rec.page.run import SERVED, read_run
from lora_rec.page.users import AGAINST, HELPED, HURT, choose_users, rank_again, show_users


@pytest.fixture(scope="module")
def again(bundle, tables):
    run = read_run(bundle)
    return run, rank_again(run, *read_data(run, find_data(bundle, [str(tables)])))


def test_it_ranks_as_the_run_did(again):
    run, found = again
    for system in ("popularity", "item_cosine", "ease"):
        for metric, value in found.rows[system].items():
            assert value == pytest.approx(run.rows[system][metric], abs=1e-9), (system, metric)
    # The bundle's linear weights are in half precision, so that near ties may turn.
    assert found.rows[SERVED]["ndcg@10"] == pytest.approx(run.rows["ranking_head"]["ndcg@10"], abs=0.02)
    lists, targets = found.comparison.lists[SERVED], list(found.split.test.targets)
    assert found.rows[SERVED]["recall@10"] == pytest.approx(recall_at_k(lists, targets, k=10).mean())
    assert np.array_equal(found.ndcg[SERVED], ndcg_at_k(lists, targets, k=10))


def test_it_uses_the_bundles_own_setting(bundle, tables, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["ranking"] |= {"strategy": "novel", "diversity": 0.5}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    run = read_run(copy)
    found = rank_again(run, *read_data(run, find_data(copy, [str(tables)])))
    assert "novel, diversity 0.5" in run.label(SERVED)
    rec = lora_rec.load(copy)
    if found.recent is None:  # else `recommend` is of today, and these lists of each user's moment
        for row in range(5):
            history = [rec.item_ids[item] for item in found.split.test.histories[row]]
            served = [rec.positions[item.item_id] for item in rec.recommend(history)]
            assert served == found.comparison.lists[SERVED][row].tolist()
    assert found.recent is None


def test_users_have_both_lists_with_what_they_took_next(again):
    run, found = again
    examples = show_users(run, found, n=3)
    assert {HELPED, HURT} <= {example.kind for example in examples}
    assert len({example.user_id for example in examples}) == len(examples)
    rows = {str(found.dataset.user_ids[user]): row for row, user in enumerate(found.split.test.users)}
    for example in examples:
        row = rows[example.user_id]
        assert example.ndcg - example.ndcg_against == found.difference[row]
        assert (example.kind == HELPED) <= (example.ndcg > example.ndcg_against)
        assert (example.kind == HURT) <= (example.ndcg < example.ndcg_against)
        taken = {run.recommender.item_ids[item] for item in found.split.test.targets[row]}
        for system, listed in ((SERVED, example.served), (AGAINST, example.against)):
            assert [item.item_id for item in listed if item.is_hit] == [
                item.item_id for item in listed if item.item_id in taken
            ]
            assert [run.recommender.positions[item.item_id] for item in listed] == found.comparison.lists[
                system
            ][row].tolist()
        history = {run.recommender.item_ids[item] for item in example.history_items}
        for item in example.served:
            assert {part.item_id for part in item.explanation.history} <= history


def test_equal_gains_are_drawn_and_nobody_comes_twice():
    difference = np.r_[np.ones(50), -np.ones(2), np.zeros(30)]
    first, second = (choose_users(difference, n=4, seed=seed) for seed in (0, 1))
    assert first == choose_users(difference, n=4, seed=0) != second
    for chosen in (first, second):
        rows = [row for _, row in chosen]
        assert len(set(rows)) == len(rows) == 10  # only two are hurt
        assert {row for kind, row in chosen if kind == HURT} == {50, 51}
        assert all(difference[row] > 0 for kind, row in chosen if kind == HELPED)

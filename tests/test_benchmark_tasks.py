"""What the figures of benchmarks/tasks.py and benchmarks/few_labels.py mean, on made-up runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import few_labels
import tasks

from lora_rec.recipe import Recipe

BASE, BPR = "movielens-100k base", "movielens-100k bpr"


def run(ndcg, auc=0.6):
    return {"ndcg@10": ndcg, "auc": auc, "seconds": 10.0}


def values_of(case, runs):
    return {
        row["metric"]: (row["value"], row["low"], row["high"], row["n"]) for row in tasks.rows_of(case, runs)
    }


def test_a_gain_is_over_the_base_of_the_same_seed():
    runs = {
        BASE: {"0": run(0.1), "1": run(0.2), "2": run(0.4)},
        BPR: {"0": run(0.11, 0.7), "1": run(0.2), "2": run(0.3, 0.5)},
    }
    found = values_of(BPR, runs)
    assert found["gain"] == pytest.approx(((0.1 + 0 - 0.25) / 3, -0.25, 0.1, 3))
    assert found["auc gain"] == pytest.approx((0.0, -0.1, 0.1, 3))
    assert found["ndcg@10"] == pytest.approx(((0.11 + 0.2 + 0.3) / 3, 0.11, 0.3, 3))
    assert values_of(BASE, runs)["gain"] == pytest.approx((0, 0, 0, 3))


def test_a_gain_stays_that_over_the_base_of_its_own_call():
    old = {"0": {"ndcg@10": 0.3, "auc": 0.6, "base": {"ndcg@10": 0.2, "auc": 0.5}}}
    runs = {BASE: {"0": {"ndcg@10": 0.6, "auc": 0.9}}, BPR: old}
    found = {row["metric"]: row["value"] for row in tasks.rows_of(BPR, runs)}
    assert found["gain"] == pytest.approx(0.5)
    assert found["auc gain"] == pytest.approx(0.1)


def test_a_case_without_all_seeds_shows_its_first():
    runs = {BASE: {"0": run(0.1), "1": run(0.2)}, BPR: {"0": run(0.2), "1": run(0.2)}}
    assert values_of(BPR, runs)["gain"] == pytest.approx((1, 1, 1, 1))
    assert tasks.rows_of(BPR, {BPR: {"0": run(0.2)}, BASE: {"1": run(0.1)}}) == []


def test_pieces_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "RESULTS", tmp_path)
    assert tasks.merge({BPR: {"0": run(0.2)}}) == {BPR: {"0": run(0.2)}}
    header = {"header": True, "runs": {BPR: {"0": run(0.2)}, BASE: {"0": run(0.1)}}}
    (tmp_path / "tasks.json").write_text(json.dumps([header]))
    found = tasks.merge({BPR: {"1": run(0.3)}, BASE: {"0": run(0.5)}})
    assert found == {BASE: {"0": run(0.5)}, BPR: {"0": run(0.2), "1": run(0.3)}}
    assert list(found) == [BASE, BPR]  # in the order of the cases, whatever was run first


@pytest.mark.parametrize("case", tasks.CASES)
def test_every_case_is_a_recipe_of_its_own(tmp_path, case):
    recipe = tasks.recipe_of(case, 1, tmp_path, tmp_path)
    assert isinstance(recipe, Recipe)
    assert recipe.train.seed == 1
    name, task = tasks.parts_of(case)
    base = tasks.recipe_of(f"{name} base", 1, tmp_path, tmp_path)
    assert (recipe == base) == (task == "base")


def test_few_labels_come_from_other_users_than_those_tested(monkeypatch, tmp_path):
    from lora_rec.data.publishers.published import Published

    generator = np.random.default_rng(0)
    from lora_rec.data.dataset import Dataset

    users = np.repeat(np.arange(60), 20)
    ratings = generator.integers(1, 6, len(users)).astype(float)
    items = np.concatenate([generator.permutation(30)[:20] for _ in range(60)])
    fields = {"title": tuple(f"film {n}" for n in range(30))}
    names = [np.array([f"{kind}{n}" for n in range(size)]) for kind, size in (("u", 60), ("i", 30))]
    dataset = Dataset(*names, fields, users, items, np.tile(np.arange(20), 60), ratings)
    monkeypatch.setattr(few_labels, "load_published", lambda *_: Published("made up", dataset))
    monkeypatch.setattr(few_labels, "N_POOL", 20)
    monkeypatch.setattr(few_labels, "N_VALIDATION", 15)
    monkeypatch.setattr(few_labels, "N_TEST_USERS", 10)
    monkeypatch.setattr(few_labels, "POOL", slice(0, 20))
    monkeypatch.setattr(few_labels, "VALIDATION", slice(20, 35))
    monkeypatch.setattr(few_labels, "TEST", slice(35, None))
    _, asked = few_labels.ask(tmp_path)
    assert len(asked.labels) == 20 + 15 + 10 * 2
    parts = [set(asked.users[part]) for part in (few_labels.POOL, few_labels.VALIDATION, few_labels.TEST)]
    assert [len(part) for part in parts] == [20, 15, 10]
    assert len(set.union(*parts)) == 45
    rated = {(u, i): r for u, i, r in zip(users, items, ratings, strict=True)}
    tested = set(asked.users[35:].tolist())
    known = [(i, r > 3) for u, i, r in zip(users, items, ratings, strict=True) if u not in tested]
    overall = np.mean([liked for _, liked in known])
    for row, (user, item) in enumerate(zip(asked.users, asked.items, strict=True)):
        assert asked.labels[row] == (rated[user, item] > 3)
        assert asked.history_likes[row].tolist() == [rated[user, i] > 3 for i in asked.histories[row]]
        votes = [liked for i, liked in known if i == item]
        if row < 35:
            votes.remove(asked.labels[row])  # its own is not among them
        mean = (sum(votes) + few_labels.PRIOR * overall) / (len(votes) + few_labels.PRIOR)
        assert asked.baseline[row] == pytest.approx(asked.history_likes[row].mean() + mean)
    same = few_labels.rows_of("16 prompt", [asked.baseline[35:].tolist()] * 3, asked)
    assert [same[1][key] for key in ("value", "low", "high")] == pytest.approx([0, 0, 0])
    assert same[0]["low"] < same[0]["value"] < same[0]["high"]
    assert {row["n"] for row in same} == {3}
    good, noise = asked.labels + 0.1 * generator.normal(size=55), generator.normal(size=55)
    assert few_labels.test_auc(few_labels.together(good, asked), asked) > 0.9
    monkeypatch.setattr(few_labels, "WEIGHTS", (0.0, 1.0))
    noise[few_labels.VALIDATION] = -10.0 * asked.labels[few_labels.VALIDATION]
    plain = few_labels.together(noise, asked)  # what misleads on validation users gets no weight
    assert few_labels.test_auc(plain, asked) == few_labels.test_auc(asked.baseline, asked)

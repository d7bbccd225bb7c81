import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lora_rec.metrics
from lora_rec.metrics import evaluate_lists, evaluate_module

NAMES = [name for name in lora_rec.metrics.__all__ if name.endswith("_at_k")]
EXPECTED = evaluate_lists(
    np.array([[0, 1], [2, 0], [1, -1]]),
    [[1, 3], [2], []],
    item_vectors=np.eye(6),
    item_counts=np.array([3, 0, 1, 0, 0, 0]),
    n_users=3,
    item_categories=np.array([[1, 0], [1, 1], [0, 0], [0, 1], [0, 0], [0, 0]]),
    histories=[[0], [0, 3], [2]],
    k=2,
)

# `evaluate` reads its cache folders when it is imported, so it runs in a process of its own.
SCRIPT = """
import json, sys
import evaluate
from lora_rec.metrics import evaluate_module

lists, relevant = [[0, 1, 2], [2, 0], [1]], [[1, 3], [2], []]
everything = {
    "item_vectors": [[float(i == j) for j in range(6)] for i in range(6)],
    "item_counts": [3, 0, 1, 0, 0, 0],
    "item_categories": [[1, 0], [1, 1], [0, 0], [0, 1], [0, 0], [0, 0]],
    "histories": [[0], [0, 3], [2]],
    "n_items": 6,
    "n_users": 3,
}
# What a metric takes, so that none works only because it is handed everything.
takes = {
    "ild_at_k": "item_vectors",
    "ild_min_at_k": "item_vectors",
    "category_ild_at_k": "item_categories",
    "category_entropy_at_k": "item_categories",
    "category_coverage_at_k": "item_categories",
    "calibration_error_at_k": "item_categories histories",
    "coverage_at_k": "n_items",
    "gini_at_k": "n_items",
    "exposure_entropy_at_k": "n_items",
    "personalization_at_k": "",
    "novelty_at_k": "item_counts n_users",
    "popularity_at_k": "item_counts",
    "popularity_lift_at_k": "item_counts histories",
    "new_items_at_k": "item_counts",
    "serendipity_at_k": "references item_counts",
    **dict.fromkeys(["recall_at_k", "ndcg_at_k", "mrr_at_k", "hit_rate_at_k"], "references"),
}

def error(function, **arguments):
    try:
        function(**arguments)
    except Exception as e:
        return f"{type(e).__name__}: {e}"

out = {"single": {}, "class_names": {}, "missing": {}}
names = sys.argv[1:]
metrics = {name: evaluate.load(evaluate_module(name)) for name in names}
for name, metric in metrics.items():
    out["class_names"][name] = metric.name
    given = {"references": relevant, **everything}
    given = {key: given[key] for key in takes[name].split()}
    out["single"].update(metric.compute(predictions=lists, k=2, **given))
ndcg = metrics["ndcg_at_k"]
out["default"] = list(ndcg.compute(predictions=lists, references=relevant))
for one, other in zip(lists, relevant):
    ndcg.add(prediction=one, reference=other)
out["streamed"] = ndcg.compute(k=2)
out["scores"] = error(
    evaluate.load(evaluate_module("ndcg_at_k")).compute, predictions=[[4.9, 2.0]], references=[[4]]
)
for name in ("ild_at_k", "novelty_at_k", "calibration_error_at_k"):
    out["missing"][name] = error(evaluate.load(evaluate_module(name)).compute, predictions=lists)
combined = evaluate.combine([evaluate_module(name) for name in names])
out["combined"] = combined.compute(predictions=lists, references=relevant, k=2, **everything)
out["unknown"] = error(
    evaluate.load(evaluate_module("ndcg_at_k")).compute, predictions=lists, references=relevant, topk=2
)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def through_evaluate(tmp_path_factory):
    if importlib.util.find_spec("evaluate") is None:
        pytest.skip("evaluate is not installed")
    home = str(tmp_path_factory.mktemp("hf_home"))
    own = {"HF_HOME": home, "HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    inherited = {k: v for k, v in os.environ.items() if k not in ("HF_METRICS_CACHE", "HF_MODULES_CACHE")}
    command = [sys.executable, "-c", SCRIPT, *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, env={**inherited, **own})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_metric_has_a_module():
    folder = Path(lora_rec.metrics.__file__).parent / "evaluate_modules"
    assert sorted(path.parent.name for path in folder.glob("*/*.py")) == NAMES
    assert len(NAMES) == 19
    assert all(Path(evaluate_module(name)).is_file() for name in NAMES)


def test_an_unknown_module_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"no metric 'ncdg_at_k'; did you mean 'ndcg_at_k'.*\(known: calibration_error"
    ):
        evaluate_module("ncdg_at_k")
    with pytest.raises(ValueError, match="no metric 'bleu'; choose a known one"):
        evaluate_module("bleu")


def test_each_module_gives_what_the_report_gives(through_evaluate):
    assert through_evaluate["single"] == pytest.approx(EXPECTED)
    assert through_evaluate["class_names"] == {name: name for name in NAMES}
    assert through_evaluate["default"] == ["ndcg@10"]


def test_lists_can_be_added_one_by_one(through_evaluate):
    assert through_evaluate["streamed"] == pytest.approx({"ndcg@2": EXPECTED["ndcg@2"]})


def test_scores_in_place_of_items_are_refused(through_evaluate):
    assert through_evaluate["scores"].startswith("ValueError: predictions: items are float64, not integers")


def test_all_modules_combine(through_evaluate):
    assert through_evaluate["combined"] == pytest.approx(EXPECTED)


def test_missing_and_unknown_settings_are_refused(through_evaluate):
    missing = through_evaluate["missing"]
    assert missing["ild_at_k"] == "ValueError: ild_at_k: no item_vectors; pass it to compute()"
    assert (
        missing["novelty_at_k"] == "ValueError: novelty_at_k: no item_counts, n_users; pass it to compute()"
    )
    assert missing["calibration_error_at_k"].endswith("no item_categories, histories; pass it to compute()")
    assert "unexpected keyword argument 'topk'" in through_evaluate["unknown"]

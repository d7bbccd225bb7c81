"""The recipe of shown lists from MIND's two files to a bundle that orders lists."""

import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from objective_runs import write_mind
from tiny import every_epoch_is_the_best
from tiny_names import TITLES

import lora_rec
from lora_rec.cli import main
from lora_rec.config import build_config
from lora_rec.errors import BundleError, DataError, RecipeError
from lora_rec.pipeline.shown import prepare_shown
from lora_rec.rank.candidates import project
from lora_rec.recipe import Recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(recipe_tree, tmp_path_factory):
    data = write_mind(tmp_path_factory.mktemp("mind"))
    kept = {name: recipe_tree[name] for name in ("user_tower", "item_tower", "train")}
    return kept | {"data": data}


def run(tree, output):
    runpy.run_path(str(ROOT / "recipes" / "shown_lists.py"))["run"](
        build_config(Recipe, tree | {"output": str(output)})
    )
    return output


@pytest.fixture(scope="module")
def shown_bundle(tree, tmp_path_factory):
    return run(tree, tmp_path_factory.mktemp("shown") / "bundle")


def test_what_is_of_the_history_comes_first(shown_bundle, models, capsys):
    rec = lora_rec.load(shown_bundle)
    metrics = json.loads((shown_bundle / "metrics.json").read_text())
    assert metrics["frozen_towers"]["auc"] > 0.9
    assert metrics["click_rate"].keys() == metrics["frozen_towers"].keys() == {"auc", "ndcg@10"}
    ordered = rec.rank_shown(["N1", "N2", "N3"], shown=["N25", "N7", "N26"])
    assert [item.rank for item in ordered] == [1, 2, 3]
    assert (ordered[0].item_id, ordered[0].title) == ("N7", "war war7")
    assert len(rec.rank_shown([], shown=["N25", "N7"])) == 2
    # Rows of a sorted or filtered frame keep their old labels.
    labelled = pd.Series(["N25", "N7", "N26"], index=[2, 0, 1])
    assert rec.rank_shown(pd.Series(["N1", "N2", "N3"]), shown=labelled) == ordered
    capsys.readouterr()
    assert main(["recommend", str(shown_bundle), "--history", "N1,N2", "--shown", "N25,N7"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["N7", "N25"]
    shown = ["recommend", str(shown_bundle), "--history", "N1,N2", "--shown", "N25,N7", "-k"]
    assert main([*shown, "1"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["N7"]
    assert main([*shown, "0"]) == 1
    assert "-k 0 is below 1" in capsys.readouterr().err
    assert main(["tune-diversity", str(shown_bundle)]) == 1
    assert "it orders lists that were shown, all of whose items stay" in capsys.readouterr().err
    assert main(["info", str(shown_bundle)]) == 0
    assert "auc" in capsys.readouterr().out


def test_adapters_that_are_kept_stand_beside_the_frozen_towers(tree, models, tmp_path):
    with every_epoch_is_the_best():
        # The frozen towers are as good as can be, 1.0, and so is the first epoch.
        bundle = run(tree | {"train": tree["train"] | {"epochs": 2}}, tmp_path / "trained")
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert {"click_rate", "frozen_towers", "trained_towers"} <= set(metrics)
    assert metrics["training"]["best_epoch"] == 2
    bases = {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}
    towers, rec = lora_rec.load_towers(bundle, **bases), lora_rec.load(bundle)
    # What the trained tower reads is what the scorer was fitted on.
    read = towers.read_items(towers.render_items(rec.item_fields))
    scorer = rec._shown
    np.testing.assert_allclose(project(read, scorer.text_mean, scorer.projection), scorer.items, atol=2e-3)


def test_a_new_item_is_ordered_by_its_text(shown_bundle, models):
    rec = lora_rec.load(shown_bundle)
    bases = {"user_backbone": str(models["bert"]), "item_backbone": str(models["llama"])}
    towers = lora_rec.load_towers(shown_bundle, **bases)
    texts = towers.render_items({"title": [TITLES[7], TITLES[30]]})
    war, love = towers.read_items(texts)
    ordered = rec.rank_shown(["N1", "N2"], shown=["x", "y", "N25"], new_items={"x": love, "y": war})
    assert (ordered[0].item_id, ordered[0].title) == ("y", "")
    numbered = rec.rank_shown(["N1", "N2"], shown=[7, 8, "N25"], new_items={7: love, "8": war})
    assert [item.score for item in numbered] == [item.score for item in ordered]
    known = {i.item_id: i.score for i in rec.rank_shown(["N1"], shown=["N7", "N8"])}
    twin = rec.rank_shown(["N1"], shown=["y"], new_items={"y": war})[0].score
    # The same text: what differs is its bias, and half precision.
    scorer = rec._shown
    assert np.isclose(twin - scorer.new_item_bias, known["N7"] - scorer.item_bias[7], atol=0.05)


def test_mistakes_are_told(shown_bundle, bundle, tree, tmp_path):
    rec = lora_rec.load(shown_bundle)
    assert rec.rank_shown(["N1"], shown=(f"N{n}" for n in (7, 8))) == rec.rank_shown(
        ["N1"], shown=["N7", "N8"]
    )
    with pytest.raises(DataError, match=r"shown \(a new item's vector.*unknown item id 'N77'"):
        rec.rank_shown(["N1"], shown=["N77"])
    with pytest.raises(DataError, match="'N1' is there twice"):
        rec.rank_shown([], shown=["N1", "N1"])
    with pytest.raises(DataError, match="history: '31' is one string; give a list of item ids"):
        rec.rank_shown("31", shown=["N1"])
    with pytest.raises(DataError, match="'x' has a vector of shape"):
        rec.rank_shown([], shown=["x"], new_items={"x": np.ones(3, "f4")})
    with pytest.raises(BundleError, match="call rank_shown"):
        rec.recommend(["N1"])
    with pytest.raises(BundleError, match="call recommend"):
        lora_rec.load(bundle).rank_shown(["i1"], shown=["i2"])
    wrong = {"data": tree["data"] | {"split": "random"}, "head": {"epochs": 3}}
    with pytest.raises(RecipeError, match=r"head: has no effect on shown lists[\s\S]*set last_day or time"):
        run(tree | wrong, tmp_path / "none")


def write_days(folder, days, *, clicked=1):
    """Ten lists on each of some days of November 2019; those of the last day have so many clicks of two."""
    lines = []
    for day in days:
        clicks = clicked if day == days[-1] else 1
        for n in range(10):
            shown = f"N{n}-1 N{n + 20}-{int(clicks > 1)}"
            lines.append(f"{len(lines)}\tU{n}\t11/{day}/2019 2:{n:02}:00 PM\tN1 N{n + 2}\t{shown}\n")
    (folder / "behaviors.tsv").write_text("".join(lines))
    (folder / "news.tsv").write_text("".join(f"N{n}\tnews\tnews {n}\n" for n in range(40)))
    return {"source": "mind", "root": str(folder), "split": "last_day"}


def test_a_log_that_is_too_short_is_refused_before_anything_trains(tree, tmp_path):
    def prepare(days, **settings):
        data = write_days(tmp_path, days, **settings)
        return prepare_shown(build_config(Recipe, tree | {"output": "x", "data": data}))

    with pytest.raises(DataError, match="all lies on 2 days"):
        prepare([11, 12])
    with pytest.raises(DataError, match="all 10 lists to learn from lie within 86,400 seconds"):
        prepare([11, 12, 13])
    with pytest.raises(DataError, match="none of 10 lists of the test part has a click and an item without"):
        prepare([10, 11, 12, 13], clicked=2)
    split = prepare([7, 8, 11, 14]).split  # weekends without lists
    assert [len(part) for part in (split.train, split.validation, split.test)] == [20, 10, 10]


def test_there_is_no_page_about_it(shown_bundle, tmp_path, capsys):
    assert main(["report", str(shown_bundle), "--output", str(tmp_path / "page.html")]) == 1
    error = capsys.readouterr().err
    assert "it orders lists that were shown" in error and error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()

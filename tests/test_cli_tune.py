import json
import os
import shutil

import pytest

import lora_rec
import lora_rec.bundle
from lora_rec.cli import main

HISTORY = ["i3", "i5", "i23"]


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def ids(items):
    return [item.item_id for item in items]


def test_recommend_uses_what_was_chosen(copy, capsys):
    before = lora_rec.load(copy)
    plain = ids(before.recommend(HISTORY))
    assert plain == ids(before.recommend(HISTORY, diversity=0.0))
    least = str(max(p["ild"] for p in json.loads((copy / "diversity.json").read_text())["points"]) - 1e-9)
    assert main(["tune-diversity", str(copy), "--least-diversity", least]) == 0
    out = capsys.readouterr().out
    assert "chosen: " in out
    assert "validation users" in out
    after = lora_rec.load(copy)
    own = after.manifest.ranking
    assert own.diversity > 0
    told = after.recommend(HISTORY, diversity=own.diversity, strategy=own.strategy, space=own.space)
    assert ids(after.recommend(HISTORY)) == ids(told) != plain
    assert ids(after.recommend(HISTORY, diversity=0.0)) == plain
    assert ids(after.recommend(HISTORY, strategy=own.strategy, space=own.space)) == ids(told)
    other = "mmr" if own.strategy != "mmr" else "dpp"
    with pytest.raises(ValueError, match=f"is one of '{own.strategy}'; give one for '{other}'"):
        after.recommend(HISTORY, strategy=other)
    assert (copy / "pictures" / "diversity.png").read_bytes().startswith(b"\x89PNG")
    assert main(["recommend", str(copy), "--history", ",".join(HISTORY), "--json"]) == 0
    printed = [json.loads(line)["item_id"] for line in capsys.readouterr().out.splitlines()]
    assert printed == ids(told)


def test_nothing_but_the_ranking_changes(copy):
    before = json.loads((copy / "bundle.json").read_text())
    assert main(["tune-diversity", str(copy), "--keep", "0.5"]) == 0
    after = json.loads((copy / "bundle.json").read_text())
    assert before.pop("ranking") != after.pop("ranking")
    # The picture shows the new choice, and bundle.json vouches for it no more.
    del before["files"]["pictures/diversity.png"]
    assert before == after
    assert not [name for name in os.listdir(copy) if ".tmp-" in name]


def test_a_stop_in_the_middle_leaves_the_old_bundle(copy, monkeypatch):
    before = (copy / "bundle.json").read_bytes()

    def fail(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(lora_rec.bundle.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        main(["tune-diversity", str(copy), "--keep", "0.5"])
    assert (copy / "bundle.json").read_bytes() == before
    assert not [name for name in os.listdir(copy) if ".tmp-" in name]
    assert lora_rec.load(copy).recommend(HISTORY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--least-diversity", "1.5"], "no setting reaches ild 1.5; the most that was measured is"),
        (["--keep", "95"], "keep: 95.0 is not in (0, 1]"),
    ],
)
def test_what_cannot_be_had_changes_nothing(copy, capsys, options, message):
    before = (copy / "bundle.json").read_bytes()
    assert main(["tune-diversity", str(copy), *options]) == 1
    assert message in capsys.readouterr().err
    assert (copy / "bundle.json").read_bytes() == before


def test_a_bundle_of_an_older_version_says_what_to_do(copy, capsys):
    manifest = json.loads((copy / "bundle.json").read_text())
    for name in ("diversity.json", "factor_vectors.npy", "popularity.npy"):
        (copy / name).unlink()
        del manifest["files"][name]
    for name in ("diversity", "space"):
        del manifest["ranking"][name]
    (copy / "bundle.json").write_text(json.dumps(manifest))
    assert main(["tune-diversity", str(copy)]) == 1
    assert "no diversity.json" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1
    assert len(lora_rec.load(copy).recommend(HISTORY, k=5, diversity=0.5)) == 5


def test_keep_in_the_recipe_is_the_bundles_own(make_bundle):
    kept = lora_rec.load(make_bundle("kept", ranking={"keep": 0.5, "n_candidates": 20}))
    assert kept.manifest.ranking.diversity > 0
    assert kept.recommend(HISTORY) != kept.recommend(HISTORY, diversity=0.0)

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lora_rec.cli import _parser, main
from lora_rec.data import load_dataset
from lora_rec.data.publishers.published import Published
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.recipe import Recipe

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_show_what_the_results_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    tables = runpy.run_path(str(ROOT / "benchmarks" / "readme_tables.py"))
    assert "lora_rec_ranking_head" in README
    assert tables["fill"](README) == README


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_results_have_the_one_form(file):
    header, *rows = json.loads(file.read_text())
    assert {"machine", "versions", "command", "date"} <= set(header)
    assert rows
    for row in rows:
        assert set(row) == {"benchmark", "case", "system", "metric", "value", "low", "high", "n", "unit"}
        assert row["benchmark"] == file.stem
        assert row["low"] <= row["value"] + 1e-12
        assert row["value"] <= row["high"] + 1e-12
        # A system that draws no numbers may run once.
        assert row["n"] in (1, len(header.get("seeds", [0])))


def test_the_python_example_runs(bundle, models, tmp_path, monkeypatch):
    (code,) = re.findall(r"<!-- test: python -->\n```python\n(.*?)```", README, flags=re.S)
    shutil.copytree(bundle, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    for wanted, there in {"318": "i3", "296": "i5", '"1"': '"i7"', "3114": "i9"}.items():
        code = code.replace(wanted, there)
    bases = f"user_backbone={str(models['bert'])!r}, item_backbone={str(models['llama'])!r}"
    code = code.replace('load_towers("runs/quickstart")', f'load_towers("runs/quickstart", {bases})')
    pytest.importorskip("pandas")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})  # noqa: S102
    assert out.getvalue().splitlines()[0].startswith("1 ")


def test_the_example_of_several_adapters_runs(bundle, make_bundle, models, tmp_path, monkeypatch):
    (code,) = re.findall(r"<!-- test: adapters -->\n```python\n(.*?)```", README, flags=re.S)
    settings = {"adapter": "adalora", "init_rank": 6, "target_rank": 2}
    ada = make_bundle(
        "ada", user_tower=settings, item_tower=settings, train={"epochs": 6, "learning_rate": 0.03}
    )
    shutil.copytree(bundle, tmp_path / "runs" / "quickstart")
    shutil.copytree(ada, tmp_path / "runs" / "ada")
    monkeypatch.chdir(tmp_path)
    bases = f"user_backbone={str(models['bert'])!r}, item_backbone={str(models['llama'])!r}"
    names = {}
    exec(code.replace('load_towers("runs/quickstart")', f'load_towers("runs/quickstart", {bases})'), names)
    assert names["towers"].adapters == ["default", "both"]
    assert set(names["towers"].active.values()) == {"default"}


def test_the_example_of_a_published_set_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"<!-- test: published -->\n```python\n(.*?)```", README, flags=re.S)
    folder = tmp_path / "data" / "lastfm"
    folder.mkdir(parents=True)
    plays = "".join(f"{user}\t{item}\t{9 * item + user}\n" for user in (2, 3) for item in range(user, 12))
    files = {
        "artists": "id\tname\turl\tp\n" + "".join(f"{n}\tBand {n}\tx\ty\n" for n in range(12)),
        "user_artists": "userID\tartistID\tweight\n" + plays,
        "user_taggedartists": "u\ta\tt\td\tm\ty\n" + "".join(f"4\t{n}\t1\t1\t1\t2009\n" for n in range(12)),
        "tags": "tagID\ttagValue\n1\tfolk\n",
        "user_friends": "userID\tfriendID\n2\t3\n",
    }
    for name, text in files.items():
        (folder / f"{name}.dat").write_text(text)
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})  # noqa: S102
    assert out.getvalue().startswith("Band ")
    assert out.getvalue().endswith("Shared tags: folk\n")


def test_the_example_of_friends_runs():
    (code,) = re.findall(r"<!-- test: friends -->\n```python\n(.*?)```", README, flags=re.S)
    ids = [2, 51, 52, 275, *range(300, 320)]
    plays = pd.DataFrame({"u": ids * 3, "i": ids + ids[1:] + ids[:1] + ids[2:] + ids[:2]})
    dataset = load_dataset(
        plays, pd.DataFrame({"i": ids}), user_column="u", item_column="i", time_column=None
    )
    friends = np.array([[n, n + step] for step in (1, 2) for n in range(len(ids) - step)])
    names = {"lastfm": Published("made up", dataset, friends=friends)}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)  # noqa: S102
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["1", "2", "3"]
    assert len(names["new"]) == 3


def test_the_example_of_a_stored_data_set_runs(tables, tmp_path, monkeypatch):
    (code,) = re.findall(r"<!-- test: stored -->\n```python\n(.*?)```", README, flags=re.S)
    for name in ("clicks.csv", "items.csv"):
        shutil.copy(tables / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})  # noqa: S102
    assert out.getvalue().startswith("60 [")
    assert out.getvalue().endswith("['war war0', 'war war1', 'war war2']\n")


def commands(program):
    """Gives the indented commands of all guides, as words, and those of the README's running text."""
    guides = "\n".join(
        file.read_text(encoding="utf-8")
        for file in (ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "recipes").glob("*.md"))
    )
    guides = guides.replace("\\\n", " ")
    found = re.findall(rf"^    ({program} .*)$", guides, flags=re.M)
    found += [
        text
        for text in re.findall(rf"`({program} [^`]*)`", guides)
        if " " in text.removeprefix(program).strip()
    ]
    return [shlex.split(re.sub(r"\s#.*$", "", text)) for text in found]


@pytest.mark.parametrize("words", commands("lora-rec"), ids=" ".join)
def test_every_command_is_one(words):
    parsed = _parser().parse_args(words[1:])
    assert callable(parsed.run)
    overrides = getattr(parsed, "overrides", [])
    if overrides and Path(ROOT / parsed.recipe).is_file():
        Recipe.load(ROOT / parsed.recipe, overrides=overrides)


@pytest.mark.parametrize("words", commands("accelerate launch"), ids=" ".join)
def test_every_launch_names_settings_that_there_are(words):
    if "..." in words:
        return  # flags of the launcher, shown without a recipe
    script = next(place for place, word in enumerate(words) if word.endswith(".py"))
    recipe = PretrainRecipe if words[script].endswith("pretrain.py") else Recipe
    assert (ROOT / words[script]).is_file()
    file, overrides = words[script + 1], words[script + 2 :]
    if file.startswith("data/shop/"):  # what `init` writes for one's own data
        file = "recipes/configs/quickstart.yaml"
    recipe.load(ROOT / file, overrides=overrides)


def test_the_map_names_every_part():
    folder = ROOT / "lora_rec"
    parts = [*folder.glob("[a-z]*.py"), *(file.parent for file in folder.glob("*/__init__.py"))]
    assert len(parts) > 10
    _, _, guide = README.partition("## Where things are")
    for part in parts:
        name = rf"lora_rec/{part.name}/ " if part.is_dir() else rf"\b{re.escape(part.name)}\b"
        assert re.search(name, guide), part.name


def test_the_command_with_rules_runs(bundle, tmp_path, monkeypatch, capsys):
    (command,) = re.findall(r"lora-rec (recommend runs/quickstart [^`]*?--explore .*)", README)
    shutil.copytree(bundle, tmp_path / "runs" / "quickstart")
    manifest = tmp_path / "runs" / "quickstart" / "bundle.json"
    tree = json.loads(manifest.read_text())
    tree["ranking"] |= {"category_field": "title", "category_separator": " "}
    manifest.write_text(json.dumps(tree))
    monkeypatch.chdir(tmp_path)
    for wanted, there in {"318,296": "i3,i5", "593,50": "i7,i9", "Horror,War": "war4,war6"}.items():
        command = command.replace(wanted, there)
    assert main(command.replace("\\\n", "").replace("Comedy", "love").split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert sum("love" in line for line in lines) in (2, 3)

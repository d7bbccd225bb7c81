"""`lora-rec report` over the tiny bundles."""

import html
import json
import re
import shutil
import warnings
from pathlib import Path

import pytest
from tiny import rewrite

from lora_rec.cli import main
from lora_rec.hub.contents import gather

HOSTILE = "<script>alert('1')</script>\" onload=\"x"


@pytest.fixture(scope="module")
def sliced(make_bundle):
    """A bundle with categories whose lists are re-ranked."""
    ranking = {"keep": 0.5, "n_candidates": 20, "category_field": "title", "category_separator": " "}
    return make_bundle("sliced", ranking=ranking)


def report(bundle, page, *options):
    assert main(["report", str(bundle), "--output", str(page), *map(str, options)]) == 0
    return page.read_text(encoding="utf-8")


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def test_without_data_no_user_is_on_the_page(bundle, tables, tmp_path, capsys):
    page = report(bundle, tmp_path / "page.html")
    assert "without any user" in capsys.readouterr().out
    text = text_of(page)
    assert "No user is in a bundle" in text
    users = {line.split(",")[0] for line in (tables / "clicks.csv").read_text().splitlines()[1:]}
    assert not [user for user in users if re.search(rf"\b{user}\b", text)]
    assert "There are no slices by category" in text
    assert "ranking head, by relevance" in text


def test_the_numbers_are_those_of_the_run(bundle, tmp_path):
    text = text_of(report(bundle, tmp_path / "page.html"))
    metrics = json.loads((bundle / "metrics.json").read_text())
    for system in ("popularity", "ease", "frozen_towers", "trained_towers", "ranking_head"):
        for metric in ("ndcg@10", "recall@10", "ild_factors@10", "ild@10", "coverage@10"):
            assert f"{metrics[system][metric]:.4f}" in text
        low, high = metrics["intervals"][system]["ndcg@10"]
        assert f"{low:.4f} to {high:.4f}" in text
    for test in metrics["tests"]:
        assert f"{test['mean']:+.4f}" in text
    groups = [part["group"] for part in metrics["slices"]]
    shown = [part for part in metrics["slices"] if groups.count(part["group"]) > 1]
    assert 0 < len(shown) < len(groups)  # all histories are equally long: that part says nothing new
    for part in shown:
        assert part["name"] in text
        assert f"{part['ndcg']['ease']:.4f}" in text


def test_with_data_users_are_helped_and_hurt(sliced, tables, tmp_path, capsys):
    page = report(
        sliced, tmp_path / "page.html", "--data", tables, "--users", "2", "--pictures", tmp_path / "p"
    )
    text = text_of(page)
    assert "so keep it where their data may lie" in capsys.readouterr().out
    assert "This page shows histories of" in text
    assert re.search(r"Drawn at random: user u\d+, ndcg@10", text)
    assert "because of: " in text
    assert "By category of the target" in text and "By length" not in text  # all are equally long
    assert "computed again from the data" in text
    pictures = {path.name for path in (tmp_path / "p").iterdir()}
    groups = ("popularity", "category")
    assert pictures == {"systems.png", "diversity.png", *(f"slices_{group}.png" for group in groups)}
    assert all((tmp_path / "p" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_nothing_is_fetched_and_nothing_runs(sliced, tables, tmp_path):
    page = report(sliced, tmp_path / "page.html", "--data", tables)
    assert "<script" not in page
    addresses = re.findall(r"(?:src|href|srcset)\s*=\s*\"([^\"]*)\"", page)
    assert len(addresses) > 10
    assert {address[:5] for address in addresses if not address.startswith("#")} == {"data:"}
    assert not re.search(r"url\(|@import|<link|<iframe|<object", page)
    assert "default-src 'none'" in page


def test_hostile_titles_stay_text(sliced, tables, tmp_path):
    def change(place):
        items = json.loads((place / "items.json").read_text())
        items["fields"]["title"] = [f"{HOSTILE} {title}" for title in items["fields"]["title"]]
        (place / "items.json").write_text(json.dumps(items))

    hostile = rewrite(sliced, tmp_path / "<b>bundle", change)
    page = report(hostile, tmp_path / "page.html", "--data", tables)
    assert "<script" not in page
    assert "<b>bundle" not in page
    assert 'onload="x' not in page
    assert HOSTILE in html.unescape(page)
    # Each stands alone, so that one written from right to left leaves the order of the others.
    assert page.count("<bdi>") == page.count("</bdi>") > page.count("taken by")


def test_categories_with_dollars_and_signs_are_drawn(bundle, tables, tmp_path):
    def change(place):
        metrics = json.loads((place / "metrics.json").read_text())
        names = (r"$5 to $\frac{<10 & more", "Clothing > " * 30 + "Socks")
        for part, name in zip(metrics["slices"], names, strict=False):
            part |= {"group": "category of the target", "name": name}
        (place / "metrics.json").write_text(json.dumps(metrics))

    with warnings.catch_warnings():  # matplotlib warns where a name leaves the points no room
        warnings.simplefilter("error", UserWarning)
        page = report(rewrite(bundle, tmp_path / "money", change), tmp_path / "page.html")
    assert r"$5 to $\frac{&lt;10 &amp; more" in page
    assert "Clothing &gt; " * 30 + "Socks" in page


def test_a_bundle_without_item_texts_takes_those_of_the_data(sliced, tables, tmp_path, capsys):
    bare = tmp_path / "bare"
    for name, content in gather(sliced, item_texts=False).files.items():
        (bare / name).parent.mkdir(parents=True, exist_ok=True)
        (bare / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    whole, found = (report(folder, tmp_path / "page.html", "--data", tables) for folder in (sliced, bare))
    assert re.findall("taken by [0-9,]+", found) == re.findall("taken by [0-9,]+", whole)
    assert re.findall("<bdi>.*?</bdi>", found) == re.findall("<bdi>.*?</bdi>", whole)
    assert main(["tune-diversity", str(bare), "--keep", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "those settings are left out" in out and "xquad" not in out and "calibrated" not in out
    assert main(["recommend", str(bare), "--history", "i3,i5"]) == 0


def test_words_come_from_the_towers(sliced, tables, models, tmp_path):
    bases = ["--user-backbone", models["bert"], "--item-backbone", models["llama"]]
    page = report(sliced, tmp_path / "page.html", "--data", tables, "--words", "1", "--users", "1", *bases)
    assert page.count("Words</b> that carry") == 1
    assert re.search(r'<span class="(for|against)" style="--w: [01]\.\d\d"', page)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-9], "written from other data or another split: n_users is 59, was 60"),
        (lambda lines: [*lines[:-1], "u59,i1,2000"], "as many users and interactions, but others"),
    ],
)
def test_other_data_is_refused_and_nothing_is_written(bundle, tables, tmp_path, capsys, change, message):
    folder = shutil.copytree(tables, tmp_path / "other")
    lines = (folder / "clicks.csv").read_text().splitlines()
    (folder / "clicks.csv").write_text("\n".join(change(lines)) + "\n")
    page, pictures = tmp_path / "page.html", tmp_path / "pictures"
    options = ["--data", str(folder), "--output", str(page), "--pictures", str(pictures)]
    assert main(["report", str(bundle), *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not page.exists() and not pictures.exists()


def test_other_items_are_refused(bundle, tables, tmp_path, capsys):
    folder = shutil.copytree(tables, tmp_path / "other")
    with open(folder / "items.csv", "a") as file:
        file.write("i40,war war9\n")
    assert main(["report", str(bundle), "--data", str(folder), "--output", str(tmp_path / "p.html")]) == 1
    assert "it has 40 items, this data 41" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "/no/folder"], "there is no folder '/no/folder'"),
        (["--data", "a", "b"], "a, b are 2 folders; give one"),
        (["--data", "train.epochs=2"], "'train.epochs=2' is no setting of the data"),
        (["--data", "data.user_colum=x"], "did you mean 'user_column'"),
        (["--data", "data.split=random"], "split is split_randomly"),
        (["--words", "2"], "without --data there is no user to explain"),
        (["--users", "0"], "users: 0"),
        (["--output", "no/such/page.html"], "output: there is no folder no/such"),
        (["--output", "."], "output: . is a folder"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    bundle, tables, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    if options == ["--data", "data.split=random"]:
        options = ["--data", str(tables), "data.split=random"]
    assert main(["report", str(bundle), *options]) == 1
    assert message in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if "cache" not in path.parts and path.name != "cache"]


def test_a_bundle_of_an_older_version_says_what_is_missing(bundle, tables, tmp_path, capsys):
    def change(place):
        metrics = json.loads((place / "metrics.json").read_text())
        for name in ("intervals", "tests", "slices", "data", "cost"):
            del metrics[name]
        (place / "metrics.json").write_text(json.dumps(metrics))
        (place / "diversity.json").unlink()

    old = rewrite(bundle, tmp_path / "old", change)
    text = text_of(report(old, tmp_path / "page.html"))
    assert "written by an older version: intervals, paired tests and parts of the users are missing" in text
    assert "no measurements of its trade-off" in text
    assert main(["report", str(old), "--data", str(tables), "--output", str(tmp_path / "b.html")]) == 1
    assert "written by an older version, so nothing tells" in capsys.readouterr().err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    out = capsys.readouterr().out
    assert "lora-rec report runs/quickstart --data" in " ".join(out.split())
    assert Path("report.html").name in out

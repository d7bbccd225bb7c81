"""`lora-rec recommend-friends` on two clusters of users, each with its own items and friends."""

import csv

import numpy as np
import pytest
import yaml

from lora_rec.cli import main


@pytest.fixture
def recipe(recipe_tree, tmp_path):
    """User n takes war where n is even; half of the pairs of one kind are friends."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(60) for b in range(a + 2, 60, 2) if rng.random() < 0.3]
    text = "user_id,friend_id\n" + "".join(f"u{a},u{b}\n" for a, b in pairs)
    (tmp_path / "friends.csv").write_text(text)
    data = recipe_tree["data"] | {"friends": str(tmp_path / "friends.csv")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree | {"data": data}))
    return tmp_path / "recipe.yaml", {tuple(pair) for pair in pairs}


def test_friends_are_printed_written_and_tested(recipe, tmp_path, capsys):
    file, known = recipe
    output = tmp_path / "out.csv"
    flags = ["--user", "u4", "-k", "3", "--output", str(output), "--test"]
    assert main(["recommend-friends", str(file), *flags]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("common_neighbours", "adamic_adar", "lora_rec_friends", "auc"))
    assert "\nuser u4\n  1  u" in printed
    with open(output, newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 60 * 3
    for row in rows:
        one, other = int(row["user_id"][1:]), int(row["friend_id"][1:])
        assert one % 2 == other % 2
        assert (min(one, other), max(one, other)) not in known
        assert int(row["n_shared_items"]) > 0  # nine items each of twenty: almost sure, and seeded
    first = next(row for row in rows if row["user_id"] == "u4")
    assert first["shared_items"].startswith("war ")
    shared = {int(name[1:]) for name in first["shared_friends"].split("; ") if name}
    other = int(first["friend_id"][1:])
    assert all((min(n, x), max(n, x)) in known for n in shared for x in (4, other))


def test_a_recipe_that_starts_from_an_adapter_reads_texts_without_it(recipe, bundle, tmp_path, capsys):
    file, _ = recipe
    tree = yaml.safe_load(file.read_text())
    assert main(["recommend-friends", str(file), "--user", "u4", "-k", "3"]) == 0
    plain = capsys.readouterr().out
    tree["user_tower"] |= {"start_from": str(bundle / "user_tower")}
    file.write_text(yaml.safe_dump(tree))
    assert main(["recommend-friends", str(file), "--user", "u4", "-k", "3"]) == 0
    assert capsys.readouterr().out == plain


def test_mistakes_are_one_line(recipe, recipe_tree, tmp_path, capsys):
    file, _ = recipe
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(recipe_tree))
    for arguments, message in (
        ([str(file)], "nothing to do; give --user"),
        ([str(plain), "--test"], "data.friends: the recipe names no friendships"),
        ([str(file), "--user", "u444"], "no user 'u444'; did you mean"),
        ([str(file), "--user", "u4", "-k", "0"], "k: 0 is below 1"),
        ([str(file), "--output", "/no/such/folder/f.csv"], "/no/such/folder/f.csv cannot be written"),
    ):
        assert main(["recommend-friends", *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error

import json
import os
import shutil
import subprocess
import sys

import pytest
from tiny import rewrite

from lora_rec.cli import main


def test_recommend_prints_a_list(bundle, capsys):
    assert main(["recommend", str(bundle), "--history", "i3, i5", "-k", "4", "--diversity", "0.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert main(["recommend", str(bundle), "--history", "i3", "-k", "2", "--json"]) == 0
    assert [json.loads(line)["rank"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


def test_recommend_takes_rules(bundle, tmp_path, capsys):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["ranking"] |= {"category_field": "title", "category_separator": " "}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    command = ["recommend", str(copy), "--history", "i3", "-k", "5", "--json"]
    rules = ["--quota", "love=2:2", "--quota", "war=:3", "--exclude", "i7,i9", "--exclude-categories", "war5"]
    options = ["--strategy", "calibrated", "--diversity", "0.4", "--explore", "0.2", "--seed", "3"]
    assert main([*command, *rules, *options]) == 0
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["title"].startswith("love") for item in items].count(True) == 2
    assert not {"i7", "i9", "i5"} & {item["item_id"] for item in items}
    assert main([*command, "--quota", "love=6:"]) == 1
    assert "6 of 'love' are 6 in all, and the list has 5 places" in capsys.readouterr().err
    assert main([*command, "--quota", "love=2:", "--quota", "love=:4"]) == 1
    assert "'love' is there twice; give both limits at once, e.g. love=2:4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--quota", "love=2"])
    assert "'love=2' is not NAME=LEAST:MOST" in capsys.readouterr().err


def test_recommend_says_why(bundle, capsys):
    wanted = ["recommend", str(bundle), "--history", "i3,i5", "-k", "3", "--explain"]
    assert main(wanted) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.strip().startswith("because of: ") and "%" in line for line in lines[1::2])
    assert main([*wanted, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        assert sum(row["explanation"]["parts"].values()) == pytest.approx(row["score"], abs=1e-4)
        assert {item["item_id"] for item in row["explanation"]["history"]} <= {"i3", "i5"}


def test_a_reader_that_has_enough_ends_the_command_quietly(bundle):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lora_rec.cli", "info", str(bundle)]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_what_would_have_no_effect_is_refused(bundle, capsys):
    command = ["recommend", str(bundle), "--history", "i3", "-k", "3"]
    for flags, named in ((["--strategy", "dpp"], "strategy"), (["--space", "factors"], "space")):
        assert main([*command, *flags]) == 1
        assert f"{named}: has no effect at diversity 0, which is this bundle's own" in capsys.readouterr().err
        assert main([*command, *flags, "--diversity", "0.3"]) == 0


def test_a_list_that_ends_early_says_so(bundle, capsys):
    assert main(["recommend", str(bundle), "--history", "i3", "-k", "39"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["recommend", str(bundle), "--history", "i3", "-k", "39", "--exclude", "i7,i9"]) == 0
    assert "lora-rec: 37 of 39: no more are left after what is excluded" in capsys.readouterr().err


def test_info_names_the_towers(bundle, capsys):
    assert main(["info", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "user_tower: tiny-bert" in out
    length = json.loads((bundle / "metrics.json").read_text())
    k = next(name for name in length["ease"] if name.startswith("ndcg@")).removeprefix("ndcg@")
    assert f"ndcg@{k} |" in out and "ranking_head_diverse" in out


def test_check_describes_or_lists_all_problems(tables, tmp_path, capsys):
    assert main(["check", str(tables / "clicks.csv"), "--items", str(tables / "items.csv")]) == 0
    assert "540" in capsys.readouterr().out
    (tmp_path / "bad.csv").write_text("user_id,item_id,timestamp\n")
    assert main(["check", str(tmp_path / "bad.csv"), "--items", str(tables / "items.csv")]) == 1
    assert "a header and no rows" in capsys.readouterr().err
    assert main(["check", str(tables / "clicks.csv")]) == 1
    assert "give --items FILE" in capsys.readouterr().err


def test_an_error_is_one_line_and_exit_code_1(bundle, capsys):
    assert main(["recommend", str(bundle), "--history", "nope"]) == 1
    assert capsys.readouterr().err.startswith("lora-rec: history: unknown item id 'nope'")
    assert main(["info", "/no/bundle"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_a_terminal_would_obey_is_not_printed(bundle, tmp_path, capsys):
    def change(place):
        items = json.loads((place / "items.json").read_text())
        items["fields"]["title"] = [f"\x1b[31m{title}\u202e\0" for title in items["fields"]["title"]]
        (place / "items.json").write_text(json.dumps(items))

    hostile = str(rewrite(bundle, tmp_path / "hostile", change))
    assert main(["recommend", hostile, "--history", "i3", "-k", "2", "--explain"]) == 0
    printed = capsys.readouterr().out
    assert not {"\x1b", "\0", "\u202e"} & {*printed}
    assert "\N{REPLACEMENT CHARACTER}[31mwar" in printed


def test_letters_that_the_terminal_lacks_are_escaped(bundle, tmp_path):
    def change(place):
        items = json.loads((place / "items.json").read_text())
        items["fields"]["title"] = [f"Amélie {title}" for title in items["fields"]["title"]]
        (place / "items.json").write_text(json.dumps(items))

    french = str(rewrite(bundle, tmp_path / "french", change))
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "lora_rec.cli", "recommend", french, "--history", "i3", "-k", "1"]
    ended = subprocess.run(command, capture_output=True, check=False, env=ascii_only)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"Am\\xe9lie" in ended.stdout


@pytest.mark.parametrize(
    ("missing", "command"),
    [("jinja2", ["report", "BUNDLE"]), ("torch", ["plan", "r.yaml"]), ("peft", ["merge", "BUNDLE", "out"])],
)
def test_a_missing_package_is_one_line(bundle, tmp_path, missing, command):
    code = f"import sys; sys.modules[{missing!r}] = None; from lora_rec.cli import main; sys.exit(main())"
    given = [str(bundle) if part == "BUNDLE" else part for part in command]
    ended = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 1
    assert ended.stderr == f"lora-rec: {missing}: not installed; run: pip install 'lora-rec[train]'\n"


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["recommend", "--help"])
    assert "example: lora-rec recommend" in capsys.readouterr().out


def test_plan_prints_what_a_run_will_cost(recipe_tree, tmp_path, capsys):
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree))
    assert main(["plan", str(tmp_path / "recipe.yaml"), "item_tower.precision=4bit"]) == 0
    printed = capsys.readouterr().out
    assert "item_tower: " in printed
    assert "  4bit  *" in printed
    assert "it fits" in printed
    assert main(["plan", str(tmp_path / "recipe.yaml"), "item_tower.precison=4bit"]) == 1
    assert "precison" in capsys.readouterr().err


def test_a_column_of_another_name_says_how_to_give_it(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("customer,sku\nann,a\n")
    (tmp_path / "items.csv").write_text("sku,title\na,war\n")
    rows, items, output = (str(tmp_path / name) for name in ("rows.csv", "items.csv", "stored"))
    command = ["store", rows, "--items", items, "--output", output, "--time-column", ""]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "user_id: no such column" in error
    assert "drop those rows" not in error
    assert "yours are named by --user-column, --item-column" in error
    columns = ["--user-column", "customer", "--item-column", "sku"]
    assert main([*command, *columns]) == 0
    assert "1 users, 1 items, 1 interactions" in capsys.readouterr().out


def test_a_path_that_is_not_there_is_said_first(tmp_path, capsys):
    assert main(["check", str(tmp_path / "recipe.yam")]) == 1
    assert "recipe.yam'; give a recipe, or the interactions" in capsys.readouterr().err

import json

import pytest

from lora_rec.cli import main


def test_recommend_prints_a_list(bundle, capsys):
    assert main(["recommend", str(bundle), "--history", "i3, i5", "-k", "4", "--diversity", "0.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert main(["recommend", str(bundle), "--history", "i3", "-k", "2", "--json"]) == 0
    assert [json.loads(line)["rank"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


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


def test_info_names_the_towers(bundle, capsys):
    assert main(["info", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "user_tower: tiny-bert" in out
    assert "ranking_head_diverse" in out


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

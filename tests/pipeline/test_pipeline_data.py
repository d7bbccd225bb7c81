from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from real_sets import FOLDERS, folder_of

from lora_rec.data.publishers import PUBLISHERS
from lora_rec.errors import DataError, RecipeError
from lora_rec.pipeline import sources
from lora_rec.pipeline.data import prepare_data, prepare_texts
from lora_rec.recipe import DataSection, Recipe
from lora_rec.text.domains import DOMAINS, DomainTexts

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
WITH_LABELS = sorted(path for path in CONFIGS.glob("*.yaml") if not path.name.startswith("pretrain-"))


@pytest.fixture
def movielens(tmp_path):
    """Ten users and twelve films; the rating is the film's number, from 1 to 5 and around again."""
    rows = [(u, f, 1 + f % 5, 100 * u + f) for u in range(1, 11) for f in range(1, 11 if u < 10 else 3)]
    (tmp_path / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    films = [f"{f}|Film {f} (1999)|||x|" + "0|" * 18 + "1" for f in range(1, 13)]
    (tmp_path / "u.item").write_text("\n".join(films) + "\n")
    return str(tmp_path)


def test_a_publishers_folder_is_read_filtered_and_split(movielens):
    dataset, split = prepare_data(DataSection(source="movielens", root=movielens))
    assert (dataset.n_users, dataset.n_items, len(split.test)) == (10, 12, 9)
    dataset, split = prepare_data(DataSection(source="movielens", root=movielens, min_interactions=3))
    assert (dataset.n_users, dataset.n_items, len(split.test)) == (9, 10, 9)
    dataset, split = prepare_data(DataSection(source="movielens", root=movielens, min_rating=4))
    assert dataset.ratings.min() == 4
    assert (dataset.n_users, dataset.n_items) == (9, 12)


def test_every_split_can_be_chosen(movielens):
    names = {
        "leave_last_out": "leave_last_out(",
        "time": "split_at_time(",
        "random": "split_randomly(",
        "last_basket": "leave_last_basket_out(",
    }
    for choice, name in names.items():
        dataset, split = prepare_data(DataSection(source="movielens", root=movielens, split=choice))
        assert split.report.name.startswith(name)
        assert len(split.train_log.users) < dataset.n_interactions
    seeded = [
        prepare_data(DataSection(source="movielens", root=movielens, split="random", split_seed=seed))[1]
        for seed in (0, 1)
    ]
    # The same 8 of 10 films for all of nine users by chance: below 1e-10.
    assert not np.array_equal(seeded[0].train_log.items, seeded[1].train_log.items)


def test_sequences_without_times_are_in_order(tmp_path):
    (tmp_path / "user_sequence.txt").write_text("UA B1 B2 B3\n")
    (tmp_path / "item_text.txt").write_text("B1 one\nB2 two\nB3 three\n")
    _, split = prepare_data(DataSection(source="amazon", root=str(tmp_path)))
    assert split.test.targets[0].tolist() == [2]


def published_recipes():
    found = [Recipe.load(path) for path in WITH_LABELS]
    return [recipe for recipe in found if recipe.data.source in PUBLISHERS]


def test_the_recipes_of_published_sets_use_their_domains_texts():
    recipes = published_recipes()
    assert {recipe.data.source for recipe in recipes} == set(PUBLISHERS)
    for recipe in recipes:
        text = recipe.text
        written = DomainTexts(text.item_template, text.history_item_template, text.history_length)
        assert written == DOMAINS[PUBLISHERS[recipe.data.source].domain]
        assert recipe.data.root == f"data/{Path(recipe.output).name}"


TEST_USERS = {"movielens": 943, "lastfm": 1884, "amazon": 22_363, "online-retail": 2731, "mind": 101}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_recipes_of_published_sets_read_the_real_files(name):
    folder = folder_of(name)
    recipe = next(recipe for recipe in published_recipes() if recipe.data.source == name)
    loaded = Recipe.load(CONFIGS / f"{Path(recipe.output).name}.yaml", overrides=[f"data.root={folder}"])
    dataset, split = prepare_data(loaded.data)
    assert len(split.test) == TEST_USERS[name]
    examples, texts = prepare_texts(loaded, dataset, split)
    assert len(texts.items) == dataset.n_items
    assert len(texts.test_texts) == len(split.test)


def test_ratings_that_are_counts_become_strengths(tmp_path):
    rows = [f"u{user},i{item},{item},{1 + item}" for user in range(3) for item in range(4)]
    (tmp_path / "plays.csv").write_text("\n".join(["user_id,item_id,timestamp,plays", *rows]))
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *(f"i{i},Song {i}" for i in range(4))]))
    files = {"interactions": str(tmp_path / "plays.csv"), "items": str(tmp_path / "items.csv")}
    _, split = prepare_data(DataSection(**files, rating_column="plays", ratings_are="counts"))
    assert split.test.histories.strengths.tolist() == [1, 2, 3] * 3
    assert split.refit_histories().strengths.tolist() == [1, 2, 3] * 3
    _, plain = prepare_data(DataSection(**files, rating_column="plays"))
    assert plain.test.histories.strengths is None


def test_counts_without_a_column_or_not_above_zero_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="ratings_are: has no effect without rating_column"):
        DataSection(interactions="a.csv", items="b.csv", ratings_are="counts")
    (tmp_path / "plays.csv").write_text("user_id,item_id,timestamp,plays\nu,i,1,0\n")
    (tmp_path / "items.csv").write_text("item_id,title\ni,Song\n")
    files = {"interactions": str(tmp_path / "plays.csv"), "items": str(tmp_path / "items.csv")}
    with pytest.raises(DataError, match="counts are above 0"):
        prepare_data(DataSection(**files, rating_column="plays", ratings_are="counts"))


def test_a_start_from_inputs_looks_at_the_texts_that_are_trained_on_alone(monkeypatch):
    class Recorded:
        lengths = np.full(900, 5)
        asked = []

        def batch(self, rows):
            self.asked += rows.tolist()
            return SimpleNamespace(to=lambda device: batch)

    batch, source = SimpleNamespace(attention_mask=None), Recorded()
    monkeypatch.setattr(sources, "start_from_inputs", lambda adapter, encode, batches: list(batches))
    tower = SimpleNamespace(adapter=None, encode_states=None, device="cpu")
    sources.start_adapter(tower, source, np.arange(0, 900, 3), seed=0, token_budget=100)
    assert sorted(source.asked) == list(range(0, 900, 3))

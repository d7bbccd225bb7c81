import numpy as np
import pandas as pd
import pytest
from real_sets import folder_of

from lora_rec.cli import main
from lora_rec.config import build_config
from lora_rec.errors import DataError
from lora_rec.pipeline.data import prepare_data, prepare_texts
from lora_rec.recipe import Recipe

N_USERS, N_EACH = 12, 6


@pytest.fixture
def make(tmp_path):
    """Twelve users with six items of their own each, in order; users who stand together are friends."""
    taken = [(f"u{u}", f"i{u}.{n}", 100 + n, 5) for u in range(N_USERS) for n in range(N_EACH)]
    columns = ["user_id", "item_id", "timestamp", "stars"]
    pd.DataFrame(taken, columns=columns).to_csv(tmp_path / "taken.csv", index=False)
    items = [(item, item.replace("i", "Song "), f"tag {item[-1]}") for _, item, *_ in taken]
    pd.DataFrame(items, columns=["item_id", "title", "tags"]).to_csv(tmp_path / "items.csv", index=False)
    knows = [(f"u{u}", f"u{u + 1}") for u in range(0, N_USERS, 2)]
    pd.DataFrame(knows, columns=["user_id", "friend_id"]).to_csv(tmp_path / "friends.csv", index=False)

    def make(data=None, **text):
        names = {"interactions": "taken", "items": "items", "friends": "friends"}
        tables = {key: str(tmp_path / f"{name}.csv") for key, name in names.items()}
        settings = {"friends_length": "9", "n_shared_tags": "9"} | text
        return build_config(Recipe, {"output": "x", "data": tables | (data or {}), "text": settings})

    return make


def prepare(recipe):
    dataset, split = prepare_data(recipe.data)
    return dataset, split, *prepare_texts(recipe, dataset, split)


def test_every_text_tells_what_friends_have_in_training_and_nothing_more(make):
    dataset, split, examples, texts = prepare(make(history_length="2"))
    parts = (
        (examples.users, texts.example_texts),
        (split.validation.users, texts.validation_texts),
        (split.test.users, texts.test_texts),
    )
    for users, numbers in parts:
        assert len(users) == len(numbers) > 0
        for user, number in zip(users, numbers, strict=True):
            friend = int(dataset.user_ids[user][1:]) ^ 1
            # The last two of six are held out; the newest stands first.
            theirs = "; ".join(f"Song {friend}.{n}" for n in (3, 2, 1, 0))
            assert f". Friends: {theirs}" in texts.users[number]
    first = texts.users[texts.test_texts[0]]
    own = dataset.user_ids[split.test.users[0]][1:]
    assert first.startswith(f"Song {own}.4; Song {own}.3. Friends: ")
    assert first.endswith(". Shared tags: tag 0, tag 1, tag 2, tag 3")


def test_no_text_but_a_users_own_tells_what_is_held_out(make):
    dataset, split, examples, texts = prepare(make())
    for user, number in zip(examples.users, texts.example_texts, strict=True):
        text = texts.users[number]
        assert not any(f".{n}" in text for n in (4, 5)), (dataset.user_ids[user], text)
    for number in texts.test_texts:
        assert ".5" not in texts.users[number]


def test_friends_and_tags_can_be_had_one_without_the_other(make):
    assert not any("Shared" in text for text in prepare(make(n_shared_tags="0"))[3].users)
    assert not any("Friends" in text for text in prepare(make(friends_length="0"))[3].users)
    with pytest.raises(DataError, match=r"text\.tags_field: there is no field 'tag'; did you mean 'tags'"):
        prepare(make(tags_field="tag"))


def test_friends_of_users_whom_a_filter_left_out_are_left_out(make, tmp_path):
    with open(tmp_path / "taken.csv", "a") as file:
        file.write("u99,i0.0,7,1\n")
    with open(tmp_path / "friends.csv", "a") as file:
        file.write("u99,u0\n")
    dataset, *_ = prepare(make({"rating_column": "stars", "min_rating": "2"}))
    assert dataset.n_users == N_USERS
    with open(tmp_path / "friends.csv", "a") as file:
        file.write("nobody,u0\n")
    with pytest.raises(DataError, match="friends: 1 row with a user who has no interactions .*'nobody'"):
        prepare(make())


def test_check_shows_a_user_with_friends_and_what_was_cleaned(make, tmp_path, capsys):
    with open(tmp_path / "friends.csv", "a") as file:
        file.write("u1,u0\nu3,u3\n")
    (tmp_path / "recipe.yaml").write_text(make().to_yaml())
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    printed = capsys.readouterr().out
    (user,) = [line for line in printed.splitlines() if ". Friends: Song " in line]
    assert "Shared tags: tag 0" in user
    assert "note: 6 friendships of 12 users" in printed
    assert "note: friend rows of users who are their own friend, left out: 1" in printed
    assert "note: friend rows that repeat a friendship, left out: 1" in printed


def test_the_recipe_of_lastfm_tells_friends():
    folder = folder_of("lastfm")
    recipe = Recipe.load("recipes/configs/lastfm.yaml", overrides=[f"data.root={folder}"])
    _, _, _, texts = prepare(recipe)
    test = [texts.users[number] for number in texts.test_texts]
    # Every user of this set has a friend; a few play all that theirs play.
    assert np.mean(["Friends: " in text for text in test]) > 0.98
    assert np.mean(["Shared tags: " in text for text in test]) > 0.95

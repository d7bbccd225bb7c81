from dataclasses import replace

import numpy as np
import pytest

from lora_rec.data.dataset import Dataset, Log
from lora_rec.data.labels import (
    MOST_LABELS,
    check_likes,
    likes,
    mean_ratings,
    read_bands,
    read_classes,
    read_item_labels,
)
from lora_rec.data.lists import Lists
from lora_rec.data.splits import split_at_time
from lora_rec.errors import DataError


def dataset(ratings=(5, 1, 2, 4, 3)):
    """User 0 rates items 0, 1 and, twice, 2; user 1 rates item 1."""
    return Dataset(
        user_ids=np.array(["a", "b"]),
        item_ids=np.array(["x", "y", "z"]),
        item_fields={"price": ("1", "2.5", "")},
        users=np.array([0, 0, 0, 0, 1]),
        items=np.array([0, 1, 2, 2, 1]),
        ratings=np.array(ratings, dtype=np.float64),
    )


def test_likes_are_told_by_the_last_rating():
    lists = Lists.from_arrays([[2, 1, 0], [1]])
    options = {"n_items": 3, "liked_from": 4}
    assert likes(dataset(), np.array([0, 1]), lists, **options).tolist() == [True, False, True, False]
    other = Lists.from_arrays([[1], [2]])
    assert likes(dataset(), np.array([1, 0]), other, **options).tolist() == [False, True]


@pytest.mark.parametrize(("liked_from", "side"), [(6, "below 6"), (0, "at or above 0")])
def test_likes_that_tell_nothing_apart_are_refused(liked_from, side):
    liked = likes(dataset(), np.array([0]), Lists.from_arrays([[0, 1]]), n_items=3, liked_from=liked_from)
    with pytest.raises(DataError, match=f"liked_from: all 2 ratings to learn from are {side}"):
        check_likes(liked, liked_from=liked_from, what="to learn from")


def test_mean_ratings_are_of_the_interactions_that_count():
    data = dataset()
    log = Log(data.users, data.items, ratings=data.ratings).take(data.items == 1)
    np.testing.assert_array_equal(mean_ratings(log, n_items=3), [np.nan, (1 + 3) / 2, np.nan])


@pytest.mark.parametrize("later", [1.0, 5.0])
def test_a_rating_given_later_labels_nothing_in_training(later):
    """User 0 rates item 0 in training, and once more in the test."""
    data = replace(
        dataset((2, 5, 4, 3, 1)),
        users=np.array([0, 0, 0, 1, 1]),
        items=np.array([0, 1, 0, 1, 2]),
        times=np.array([1, 2, 9, 3, 5]),
        ratings=np.array([2.0, 5.0, later, 3.0, 1.0]),
    )
    log = split_at_time(data, validation_from=4, test_from=8).train_log
    taken = Lists.from_arrays([[0]])
    assert not likes(log, np.array([0]), taken, n_items=3, liked_from=3).any()
    assert mean_ratings(log, n_items=3)[0] == 2


def test_bands_have_as_many_items_each():
    found = read_bands(np.arange(100, dtype=np.float64), name="price")
    assert np.bincount(found.classes).tolist() == [20] * 5
    assert found.labels[0] == " to 19.8"
    with pytest.raises(DataError, match="'price' has no two different numbers"):
        read_bands(np.array([1.0, 1.0, np.nan]), name="price")


def test_a_rare_label_counts_as_none():
    values = [f"c{n}" for n in range(MOST_LABELS)] * 2 + ["rare"]
    found = read_classes(values, name="brand")
    assert len(found.labels) == MOST_LABELS
    assert found.classes[-1] == -1
    with pytest.raises(DataError, match="'brand' has 1 labels, which tell nothing; leave it out"):
        read_classes(["a", "a", ""], name="brand")


def test_fields_by_kind():
    fields = {"kind": ["a", "b"], "tags": ["u, v", "v"], "price": ["1", "9"], "year": ["1999", "old"]}
    names = {"class_fields": ["kind"], "tag_fields": ["tags"], "band_fields": ["price", "rating"]}
    found = read_item_labels(fields, names, mean_ratings=np.array([1.0, 5.0]))
    assert [labels.name for labels in found] == ["kind", "tags", "price", "rating"]
    assert [labels.tags is None for labels in found] == [True, False, True, True]
    with pytest.raises(DataError, match=r"objectives.band_fields: 'year': 'old' is no number; name it in"):
        read_item_labels(fields, {"band_fields": ["year"]}, mean_ratings=None)
    with pytest.raises(DataError, match=r"objectives.band_fields: there is no field 'rating'"):
        read_item_labels(fields, {"band_fields": ["rating"]}, mean_ratings=None)

"""Every count that is known of the real sets; skipped where they are missing."""

import warnings

import numpy as np
import pytest
from real_sets import real


def counts(published):
    dataset = published.dataset
    return dataset.n_users, dataset.n_items, dataset.n_interactions


def test_movielens_100k():
    published = real("movielens")
    assert counts(published) == (943, 1682, 100_000)
    dataset = published.dataset
    toy_story = dataset.item_ids.tolist().index("1")
    assert {name: texts[toy_story] for name, texts in dataset.item_fields.items()} == {
        "title": "Toy Story",
        "year": "1995",
        "genres": "Animation, Children's, Comedy",
    }
    assert "Hunt for Red October, The" in dataset.item_fields["title"]
    assert np.bincount(dataset.ratings.astype(int)).tolist() == [0, 6110, 11370, 27145, 34174, 21201]


def test_lastfm():
    published = real("lastfm")
    assert counts(published) == (1892, 17_632, 92_834)
    assert published.friends.shape == (12_717, 2)
    assert (published.friends[:, 0] < published.friends[:, 1]).all()
    assert published.dataset.times is None
    fields = published.dataset.item_fields
    assert fields["tags"][fields["title"].index("MALICE MIZER")].startswith("j-rock, visual kei")
    assert sum(map(bool, fields["tags"])) == 10_284  # 12,133 with the tags of those who play the artist


def test_amazon_beauty():
    published = real("amazon")
    assert counts(published) == (22_363, 12_101, 198_502)
    assert published.dataset.times is None


def test_online_retail():
    published = real("online-retail")
    dataset = published.dataset
    pairs = np.unique(np.stack([dataset.users, dataset.items]), axis=1).shape[1]
    assert (dataset.n_users, dataset.n_items, pairs) == (4339, 3866, 268_171)
    assert not (dataset.times % 60).any()  # to the minute


def test_mind():
    published = real("mind")
    shown = published.impressions
    assert (*counts(published), len(shown)) == (4637, 22_592, 7542, 5000)
    assert int(shown.clicks.sum()) == 7542
    assert int((shown.histories.counts == 0).sum()) == 107
    assert published.notes == ("107 of 5,000 impressions have no history",)


@pytest.mark.parametrize("name", ["movielens", "lastfm", "amazon", "online-retail", "mind"])
def test_reading_warns_of_nothing(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert real(name).dataset.n_interactions

import re

import numpy as np
import pytest

from lora_rec.data import Lists
from lora_rec.data.publishers import PUBLISHERS
from lora_rec.errors import DataError
from lora_rec.recipe import TextSection
from lora_rec.text import social
from lora_rec.text.domains import DOMAINS
from lora_rec.text.social import social_text
from lora_rec.text.templates import render_items

FIELDS = {
    "title": ["Elder Sea", "云海"],
    "year": ["1999", ""],
    "genres": ["Drama, War", ""],
    "tags": ["folk, nordic", ""],
    "category": ["news", ""],
}


@pytest.mark.parametrize(
    ("domain", "texts"),
    [
        ("e-commerce", ["Elder Sea", "云海"]),
        ("music", ["Elder Sea: folk, nordic", "云海"]),
        ("video", ["Elder Sea (1999), Drama, War", "云海"]),
        ("news", ["news: Elder Sea", "云海"]),
        ("social", ["Elder Sea: folk, nordic", "云海"]),
    ],
)
def test_templates(domain, texts):
    texts_of = DOMAINS[domain]
    assert render_items(texts_of.item_template, FIELDS) == texts
    TextSection(texts_of.item_template, texts_of.history_item_template, texts_of.history_length)


def test_every_publisher_has_a_domain():
    assert {publisher.domain for publisher in PUBLISHERS.values()} == set(DOMAINS) - {"social"}


HISTORIES = Lists.from_arrays([[0, 1], [1, 2, 3], [2, 0, 4], []])
TITLES = ["Norn", "Elder", "Ulla", "Frost", "云海"]
TAGS = ["folk, nordic", "folk", "jazz", "jazz, nordic", ""]


def test_social_text_by_hand():
    friends = np.array([[0, 1], [0, 2], [1, 2]])
    texts = social_text(HISTORIES, friends, TITLES, item_tags=TAGS)
    # Both friends of user 0 have Ulla; Frost and 云海 are the newest of one each, and stand in item order.
    assert texts == [
        "Elder; Norn. Friends: Ulla; Frost; 云海. Shared tags: folk, nordic",  # two items with folk
        "Frost; Ulla; Elder. Friends: Norn; 云海. Shared tags: folk, nordic, jazz",
        "云海; Norn; Ulla. Friends: Elder; Frost. Shared tags: folk, nordic, jazz",
        "untitled",
    ]


def test_social_text_limits_and_parts():
    lonely = social_text(HISTORIES, np.empty((0, 2), np.int64), TITLES, item_tags=TAGS)
    assert lonely == ["Elder; Norn", "Frost; Ulla; Elder", "云海; Norn; Ulla", "untitled"]
    friends = np.array([[0, 1], [1, 3]])
    limits = {"history_length": 1, "friends_length": 1, "n_tags": 1}
    texts = social_text(HISTORIES, friends, TITLES, item_tags=TAGS, **limits)
    assert texts == [
        "Elder. Friends: Frost. Shared tags: folk",
        "Frost. Shared tags: folk",  # user 0's newest is among user 1's own
        "云海",
        "Friends: Frost",
    ]
    assert (
        social_text(HISTORIES, friends, TITLES, newest_first=False)[1] == "Elder; Ulla; Frost. Friends: Norn"
    )


def test_social_text_at_a_point_of_a_history(monkeypatch):
    """User 0 twice and user 1, at points before the ends of their histories."""
    friends, points = np.array([[0, 1], [0, 2]]), Lists.from_arrays([[], [0], [1, 2]])
    settings = {"item_tags": TAGS, "users": np.array([0, 0, 1]), "friend_histories": HISTORIES}
    texts = social_text(points, friends, TITLES, **settings)
    assert texts == [
        # What user 0 takes later (Norn, Elder) is offered where friends have it, as before any next item.
        "Friends: Ulla; Frost; 云海; Norn; Elder",
        "Norn. Friends: Ulla; Frost; 云海; Elder. Shared tags: folk, nordic",
        "Ulla; Elder. Friends: Norn. Shared tags: folk",
    ]
    monkeypatch.setattr(social, "ROWS_AT_ONCE", 2)
    assert social_text(points, friends, TITLES, **settings) == texts
    assert social_text(points, friends, TITLES, **settings | {"friends_length": 0, "n_tags": 0}) == [
        "untitled",
        "Norn",
        "Ulla; Elder",
    ]


@pytest.mark.parametrize("seed", range(3))
def test_social_text_agrees_with_a_slow_loop(seed):
    """With 30 users, 40 items and 90 friendships nearly every user has friends' items and shared tags."""
    rng = np.random.default_rng(seed)
    histories = Lists.from_arrays([rng.permutation(40)[: rng.integers(0, 15)] for _ in range(30)])
    pairs = {tuple(sorted(rng.choice(30, 2, replace=False).tolist())) for _ in range(90)}
    tags = [
        ", ".join(f"t{tag:02d}" for tag in sorted(rng.permutation(12)[: rng.integers(0, 5)]))
        for _ in range(40)
    ]
    titles = [f"i{n:02d}" for n in range(40)]
    got = social_text(histories, np.array(sorted(pairs)), titles, item_tags=tags, friends_length=4, n_tags=3)
    for user in range(30):
        own = histories[user].tolist()
        others = [a + b - user for a, b in pairs if user in (a, b)]
        seen = {}
        for other in others:
            for back, item in enumerate(histories[other].tolist()[::-1][:4], 1):
                count, newest = seen.get(item, (0, 99))
                seen[item] = (count + 1, min(newest, back))
        items = sorted((i for i in seen if i not in own), key=lambda i: (-seen[i][0], seen[i][1], i))[:4]
        mine = [tag for item in own for tag in tags[item].split(", ") if tag]
        theirs = [{t for i in histories[o].tolist() for t in tags[i].split(", ")} for o in others]
        n_friends = {tag: sum(tag in their for their in theirs) for tag in set(mine)}
        shared = sorted(
            (t for t in n_friends if n_friends[t]), key=lambda t: (-n_friends[t], -mine.count(t), t)
        )[:3]
        parts = ["; ".join(titles[item] for item in own[::-1][:10])] if own else []
        parts += ["Friends: " + "; ".join(titles[item] for item in items)] if items else []
        parts += ["Shared tags: " + ", ".join(shared)] if shared else []
        assert got[user] == (". ".join(parts) or "untitled")
    assert sum("Friends" in text and "Shared" in text for text in got) > 20


def test_social_text_errors():
    with pytest.raises(
        DataError, match=re.escape("social_text.friends: a user is outside 0..3; use internal")
    ):
        social_text(HISTORIES, np.array([[0, 4]]), TITLES)
    with pytest.raises(DataError, match=r"social_text\.item_tags: 1 for 5 items; give one each, '' if none"):
        social_text(HISTORIES, np.array([[0, 1]]), TITLES, item_tags=["x"])

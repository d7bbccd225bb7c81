"""Which words carry the cosine of a history and an item."""

import re

import numpy as np
import pytest
import torch
from tiny import make_tower, train

import lora_rec
from lora_rec.errors import DataError
from lora_rec.export.explain import explain_match
from lora_rec.text.collate import tokenize
from lora_rec.text.labels import label_history, label_item
from lora_rec.towers.two_tower import encode

FIELDS = {
    "title": ["war war1", "love love3", "war7 ( love8", "love1"],
    "kind": ["war2", "", "love9 war3", "love5"],
}
USER = label_history(np.array([0, 1, 2]), "{title}[, {kind}]", FIELDS, length=9)
ITEM = label_item("{title}[ ; {kind}]", {"title": "love1 love2 war5", "kind": "love7"})


def explain(user_tower, item_tower, user_text=USER, item_text=ITEM, n_subsets=100):
    return explain_match(
        user_tower,
        item_tower,
        user_text,
        item_text,
        max_tokens=(32, 32),
        n_subsets=n_subsets,
    )


def vector(tower, text):
    tokens = tokenize(tower.backbone_info.tokenizer, [text], max_tokens=32)
    return encode(tower, tokens, np.arange(1), token_budget=100)[0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("bert", {"adapter": "ia3"}), ("gpt2", {"adapter": "prefix"}), ("llama", {}), ("qwen2", {})],
)
def test_words_add_up_to_the_cosine(backbone_folder, name, settings):
    user, item = make_tower(backbone_folder("bert")), make_tower(backbone_folder(name), **settings)
    for tower in (user, item):
        train(tower)
    why = explain(user, item)
    expected = float(vector(user, USER.text) @ vector(item, ITEM.text))
    assert why.score == pytest.approx(expected, abs=1e-5)
    assert why.user.baseline == pytest.approx(float(vector(user, "") @ vector(item, ITEM.text)), abs=1e-5)
    for side in (why.user, why.item):
        total = sum(word.contribution for word in side.words)
        assert max(abs(word.contribution) for word in side.words) > 0.01
        assert side.baseline + total == pytest.approx(expected, abs=1e-5)
        assert sum(side.by_field().values()) == pytest.approx(total)
        assert sum(side.by_place().values()) == pytest.approx(total)
    words = [word.text for word in why.item.words]
    assert words == ["love1", "love2", "war5 ;", "love7"]
    assert list(why.item.by_field()) in (["title", "kind"], ["kind", "title"])
    assert set(why.user.by_place()) == {0, 1, 2}
    assert all(word.error == 0 for word in why.item.words)  # four words: every order
    assert all(word.error > 0 for word in why.user.words)


def test_errors_are_those_of_the_orders_drawn(backbone_folder):
    tower = make_tower(backbone_folder("bert"))
    train(tower)
    truth = explain(tower, tower, n_subsets=5000).user.words
    drawn = explain(tower, tower, n_subsets=150).user.words
    ratios = [(a.contribution - b.contribution) / a.error for a, b in zip(drawn, truth, strict=True)]
    # Ratios of a standard normal kind; nine words, drawn from a fixed seed.
    assert 0.3 < np.sqrt(np.mean(np.square(ratios))) < 2.5


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_word_that_alone_decides_carries_the_cosine(backbone_folder, name):
    """A tower that averages its words, of which all but one say nearly the same."""
    tower = make_tower(backbone_folder(name), pooling="mean")
    model = tower.backbone_info.model
    planted = tower.backbone_info.tokenizer.convert_tokens_to_ids("war5")
    words = model.get_input_embeddings().weight
    with torch.no_grad():
        kept = words[planted].clone()
        words[:] = words[7] + 0.02 * (words - words[7])
        words[planted] = kept
        for path, parameter in model.named_parameters():
            if re.search(r"position_embeddings|output\.dense|o_proj|down_proj", path):
                parameter.zero_()
    why = explain(tower, tower, label_item("{title}", {"title": "war5"}), ITEM)
    assert why.score > why.item.baseline + 0.01
    (best,) = why.item.best(1)
    assert best.text == "war5 ;"
    others = [abs(word.contribution) for word in why.item.words if word is not best]
    assert max(others) < 0.3 * best.contribution


def test_towers_of_a_bundle_explain_by_rows(models, bundle, make_bundle):
    rec = lora_rec.load(bundle)
    for folder in (bundle, make_bundle("four-bit-news", item_tower={"precision": "4bit"})):
        towers = lora_rec.load_towers(
            folder, user_backbone=str(models["bert"]), item_backbone=str(models["llama"])
        )
        history, (item,) = rec.find_items(["i3", "i25", "i5"]), rec.find_items(["i7"])
        why = towers.explain(history, item, rec.item_fields, n_subsets=50)
        (user_text,) = towers.render_histories([history], rec.item_fields)
        (item_text,) = towers.render_items({name: [column[item]] for name, column in rec.item_fields.items()})
        assert (why.user.text, why.item.text) == (user_text, item_text)
        cosine = towers.encode_users([user_text])[0] @ towers.encode_items([item_text])[0]
        total = why.item.baseline + sum(word.contribution for word in why.item.words)
        assert total == pytest.approx(float(cosine), abs=1e-3)


@pytest.mark.parametrize(
    ("history", "item", "settings", "message"),
    [
        ([0, -1], 1, {}, r"history: rows \[0, -1\]; give whole numbers from 0 to 39"),
        ([0, 1.5], 1, {}, r"history: rows \[0.0, 1.5\]"),
        ([0], 40, {}, r"item: rows \[40\]"),
        ([0], 1, {"n_subsets": 0}, "n_subsets: 0 is below 1"),
    ],
)
def test_rows_that_are_none_are_refused(models, bundle, history, item, settings, message):
    towers = lora_rec.load_towers(
        bundle, user_backbone=str(models["bert"]), item_backbone=str(models["llama"])
    )
    fields = lora_rec.load(bundle).item_fields
    with pytest.raises(DataError, match=message):
        towers.explain(history, item, fields, **settings)
    if "history" in message:
        with pytest.raises(DataError, match=message):
            towers.render_histories([[1], history], fields)

from dataclasses import replace
from itertools import combinations
from math import factorial

import numpy as np
import pytest

import lora_rec
from lora_rec.data.lists import Lists
from lora_rec.rank.explain import Explanation, HistoryItem, explain_items
from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.new_items import find_neighbours
from lora_rec.rank.sequence import SequencePart

IDS = [f"i{n}" for n in range(12)]
TITLES = [f"Title {n}" for n in range(12)]


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("f4")


def sequence_part(*, width=8, length=8):
    return SequencePart(
        items=draw(12, width),
        item_bias=draw(12),
        input_scale=np.array([1.5], "f4"),
        start=draw(width),
        text_weight=draw(width, 4),
        distance_bias=draw(2, 2, length + 1),
        attention_weight=draw(2, 3 * width, width),
        attention_bias=draw(2, 3 * width),
        merge_weight=draw(2, width, width),
        merge_bias=draw(2, width),
        hidden_weight=draw(2, 16, width),
        hidden_bias=draw(2, 16),
        output_weight=draw(2, width, 16),
        output_bias=draw(2, width),
        state_scale=draw(width),
        state_bias=draw(width),
        sharpness=np.array([4.0], "f4"),
    )


def whole_head(**more):
    neighbours = np.argsort(draw(12, 12), axis=1)[:, :7].astype("i4")
    linear = ItemItemModel(np.sort(neighbours, axis=1), draw(12, 7), 0.8)
    return RankingHead(
        linear,
        sequence_part(),
        0.7,
        recent=np.exp(draw(12)),
        recent_weight=0.4,
        new_items=find_neighbours(draw(12, 5), np.arange(12) >= 10, factor=1.7, n_neighbours=3),
        **more,
    )


def explain(head, history, items=range(12), **more):
    lists = history if isinstance(history, Lists) else Lists.from_arrays([history])
    return explain_items(head, lists, np.array(items), item_ids=IDS, titles=TITLES, **more)


def test_the_linear_part_by_hand():
    # Of items 0, 1, 2 in the history, 0 speaks for 3 with 4, 1 with -1, 2 not at all; each is half as old.
    neighbours = np.array([[3], [3], [4], [0], [0]], "i4")
    model = ItemItemModel(neighbours, np.array([[4], [-1], [8], [0], [0]], "f4"), 0.5)
    (why,) = explain(RankingHead(model), [0, 1, 2], [3])
    spread = np.std([0, 0, 0, 4 / 4 - 1 / 2, 8])
    assert [(row.item_id, row.title) for row in why.history] == [("i0", "Title 0"), ("i1", "Title 1")]
    np.testing.assert_allclose([row.contribution for row in why.history], [1 / spread, -0.5 / spread])
    assert [row.share for row in why.history] == pytest.approx([1.0, -0.5])
    assert why.parts == pytest.approx({"linear": 0.5 / spread, "sequence": 0.0})


@pytest.mark.parametrize("history", [[3], [5, 2], [1, 4, 1, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 1]])
@pytest.mark.parametrize("with_text", [False, True])
def test_parts_and_items_add_up_to_the_score(history, with_text):
    head, text = whole_head(), draw(1, 3) if with_text else None
    lists = Lists.from_arrays([history], [np.arange(1.0, 1 + len(history))])
    scores = head.scores(lists, text)[0]
    for why, score in zip(explain(head, lists, user_embedding=text), scores, strict=True):
        assert sum(why.parts.values()) == pytest.approx(score, abs=1e-4)
        assert sum(row.linear for row in why.history) == pytest.approx(why.parts["linear"], abs=1e-9)
        assert sum(row.sequence for row in why.history) == pytest.approx(why.parts["sequence"], abs=1e-9)
        assert ("user_text" in why.parts) == with_text
        spoke_for = [max(0, share) for share in [*why.shares.values(), *(r.share for r in why.history)]]
        assert sum(spoke_for) == pytest.approx(1)
        amounts = [row.contribution for row in why.history]
        assert amounts == sorted(amounts, reverse=True)
        assert len({row.item_id for row in why.history}) == len(amounts)


def shapley_values(part, history, item):
    """The definition, over all subsets."""
    n = len(history)

    def value(places):
        subset = Lists.from_arrays([[history[p] for p in sorted(places)]])
        return float(part.user_vectors(subset)[0] @ part.items[item])

    result = np.zeros(n)
    for place in range(n):
        others = [p for p in range(n) if p != place]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for subset in combinations(others, size):
                result[place] += weight * (value({*subset, place}) - value(subset))
    return result


def only_sequence():
    head = whole_head()
    return replace(head, linear=ItemItemModel(head.linear.neighbours, np.zeros((12, 7), "f4"), 0.8))


def by_item(why):
    return {row.item_id: row.sequence for row in why.history}


def test_short_histories_have_their_shapley_values():
    head, history = only_sequence(), [7, 2, 9, 4]
    (why,) = explain(head, history, [5])
    expected = 0.7 * shapley_values(head.sequence, history, 5)
    for item, value in zip(history, expected, strict=True):
        assert by_item(why)[f"i{item}"] == pytest.approx(value, abs=1e-4)


def test_longer_histories_have_them_nearly():
    head, history = only_sequence(), [7, 2, 9, 4, 0, 8, 1]
    (why,) = explain(head, history, [5])
    expected = 0.7 * shapley_values(head.sequence, history, 5)
    given = [by_item(why)[f"i{item}"] for item in history]
    # The orders are drawn from a fixed seed.
    assert np.abs(given - expected).max() < 0.5 * np.abs(expected).max()
    assert np.corrcoef(given, expected)[0, 1] > 0.9


def test_what_the_sequence_part_does_not_see_adds_nothing_to_it():
    head = only_sequence()
    (why,) = explain(head, [10, 11, 0, 1, 2, 3, 4, 5, 6, 7], [9])
    assert "i10" not in by_item(why) and "i11" not in by_item(why)
    assert len(why.history) == 8


def test_a_new_item_is_explained_by_its_neighbours():
    head, history = whole_head(), [3, 1, 4]
    new, *known = explain(head, history, [10, *head.new_items.neighbours[0]])
    weights = head.new_items.weights[0]
    assert [near.item_id for near in new.neighbours] == [
        f"i{n}" for n in head.new_items.neighbours[0][np.argsort(-weights)]
    ]
    assert sum(near.weight for near in new.neighbours) == pytest.approx(1)
    for item in history:
        through = sum(
            w * row.contribution
            for w, why in zip(weights, known, strict=True)
            for row in why.history
            if row.item_id == f"i{item}"
        )
        (own,) = [row.contribution for row in new.history if row.item_id == f"i{item}"]
        assert own == pytest.approx(1.7 * through)
    mean = head.scores(Lists.from_arrays([history]))[0, :10].mean()
    assert new.parts["new_items"] == pytest.approx(-0.7 * mean, rel=1e-5)
    assert "new; scored like Title" in new.in_one_line()
    assert all(not why.neighbours and why.parts["new_items"] == 0 for why in known)


def test_recommend_explains_when_asked(bundle):
    rec = lora_rec.load(bundle)
    history, text = ["i3", "i5"], draw(8)
    for diversity in (0.0, 0.5):
        options = {"k": 4, "diversity": diversity, "user_embedding": text}
        plain, told = rec.recommend(history, **options), rec.recommend(history, **options, explain=True)
        assert [replace(item, explanation=None) for item in told] == plain
        for item in told:
            assert sum(item.explanation.parts.values()) == pytest.approx(item.score, abs=1e-4)
            assert {row.item_id for row in item.explanation.history} <= set(history)
    many = rec.recommend_users({"a": history, "b": ["i21"]}, k=3, explain=True)
    assert many.rows[1][0].explanation == rec.recommend(["i21"], k=1, explain=True)[0].explanation


def test_an_item_without_a_title_is_named_by_its_id():
    rows = (HistoryItem("i7", "", 1.0, 1.0, 0.0, 1.0),)
    assert Explanation({"linear": 1.0}, {}, rows).in_one_line() == "because of: i7 100%"

import numpy as np
import torch

from lora_rec.data.lists import Lists
from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.new_items import find_neighbours
from lora_rec.rank.sequence import SequencePart
from lora_rec.train.item_item import ItemItemSettings, prepare_fit
from lora_rec.train.sequence import SequenceHead

GENERATOR = np.random.default_rng(0)
HISTORIES = Lists.from_arrays([GENERATOR.permutation(20)[: n % 9] for n in range(30)])
TEXT = GENERATOR.normal(size=(20, 6)).astype("f4")


def sequence():
    torch.manual_seed(0)
    module = SequenceHead(
        TEXT,
        np.bincount(HISTORIES.values, minlength=20),
        user_width=4,
        width=8,
        n_blocks=2,
        n_heads=2,
        history_length=5,
        dropout=0.1,
        id_dropout=0.3,
        min_id_count=2,
        temperature=0.2,
    )
    return SequencePart(**module.to_arrays())


def make_head(weight=0.05, **more):
    settings = ItemItemSettings(nearness=5.0, regularisation=5.0, text_weight=0.0)
    table = prepare_fit(HISTORIES, n_items=20).table(settings, n_neighbours=12)
    return RankingHead(ItemItemModel(*table, decay=0.8), sequence(), weight, **more)


def every_part():
    counts = GENERATOR.random(20).astype("f4")
    table = find_neighbours(TEXT, np.arange(20) >= 17, factor=2.0, n_neighbours=4)
    return make_head(recent=counts, recent_weight=0.3, new_items=table)


def test_save_and_load_give_the_same_scores():
    head = every_part()
    again = RankingHead.from_arrays(head.to_arrays())
    assert (again.sequence_weight, again.linear.decay, again.recent_weight) == (0.05, 0.8, 0.3)
    assert again.new_items.factor == 2.0
    assert head.scores(HISTORIES).dtype == np.float32
    # Weights are kept in half precision.
    np.testing.assert_allclose(again.scores(HISTORIES), head.scores(HISTORIES), atol=5e-3)


def test_the_linear_part_is_saved_and_loaded_alone():
    head = RankingHead(make_head().linear)
    again = RankingHead.from_arrays(head.to_arrays())
    assert again.sequence is None and again.recent is None
    np.testing.assert_allclose(again.scores(HISTORIES), head.scores(HISTORIES), atol=5e-3)


def test_lists_are_the_best_scores_outside_the_history():
    head = every_part()
    items, scores = head.top_k(HISTORIES, k=3)
    for row, history in enumerate(HISTORIES):
        left = head.scores(HISTORIES)[row]
        left[history] = -np.inf
        assert items[row].tolist() == np.argsort(-left, kind="stable")[:3].tolist()
        np.testing.assert_allclose(scores[row], left[items[row]], rtol=1e-5)


def standardised(head):
    scores = head.linear.scores(HISTORIES)
    spread = scores.std(axis=1, keepdims=True)
    return scores / np.where(spread > 0, spread, 1)


def test_without_weight_the_linear_part_ranks_alone():
    head = make_head(weight=0.0)
    np.testing.assert_allclose(head.scores(HISTORIES), standardised(head), rtol=1e-6)


def test_scores_are_the_sum_of_the_parts():
    head = make_head(recent=np.ones(20, np.float32), recent_weight=0.3)
    texts = GENERATOR.normal(size=(30, 4)).astype("f4")
    part = head.sequence
    expected = 0.05 * (part.user_vectors(HISTORIES, texts) @ part.items.T + part.item_bias)
    expected += standardised(head) + 0.3 * np.log(2)
    np.testing.assert_allclose(head.scores(HISTORIES, texts), expected, atol=1e-5)


def test_recent_counts_of_a_moment_replace_those_of_the_end():
    head = make_head(recent=np.zeros(20, np.float32), recent_weight=2.0)
    counts = np.zeros((30, 20), np.float32)
    counts[:, 3] = 1000
    assert (head.scores(HISTORIES, recent=counts)[:, 3] > head.scores(HISTORIES)[:, 3] + 10).all()


def test_new_items_score_by_their_neighbours_alone():
    head = every_part()
    scores = head.scores(HISTORIES)
    others = RankingHead(head.linear, head.sequence, 0.05, head.recent, 0.3).scores(HISTORIES)
    np.testing.assert_allclose(scores[:, :17], others[:, :17], rtol=1e-6)
    means = others[:, :17].mean(axis=1)
    near = (others[:, head.new_items.neighbours] * head.new_items.weights).sum(axis=2)
    expected = means[:, None] + 2 * (near - means[:, None])
    np.testing.assert_allclose(scores[:, 17:], expected, rtol=1e-4, atol=1e-5)

import numpy as np
import torch

from lora_rec.data.lists import Lists
from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
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


def make_head(weight=0.05):
    settings = ItemItemSettings(nearness=5.0, regularisation=5.0, text_weight=0.0)
    table = prepare_fit(HISTORIES, n_items=20).table(settings, n_neighbours=12)
    return RankingHead(ItemItemModel(*table, decay=0.8), sequence(), weight)


def test_save_and_load_give_the_same_scores():
    head = make_head()
    again = RankingHead.from_arrays(head.to_arrays())
    assert (again.sequence_weight, again.linear.decay) == (0.05, 0.8)
    assert head.scores(HISTORIES).dtype == np.float32
    # Weights are kept in half precision.
    np.testing.assert_allclose(again.scores(HISTORIES), head.scores(HISTORIES), atol=2e-3)


def test_lists_are_the_best_scores_outside_the_history():
    head = make_head()
    items, scores = head.top_k(HISTORIES, k=3)
    for row, history in enumerate(HISTORIES):
        left = head.scores(HISTORIES)[row]
        left[history] = -np.inf
        assert items[row].tolist() == np.argsort(-left, kind="stable")[:3].tolist()
        np.testing.assert_allclose(scores[row], left[items[row]], rtol=1e-5)


def test_without_weight_the_linear_part_ranks_alone():
    head = make_head(weight=0.0)
    np.testing.assert_array_equal(head.scores(HISTORIES), head.linear.scores(HISTORIES))


def test_scores_are_the_sum_of_both_parts():
    head = make_head()
    texts = GENERATOR.normal(size=(30, 4)).astype("f4")
    part = head.sequence
    expected = 0.05 * (part.user_vectors(HISTORIES, texts) @ part.items.T + part.item_bias)
    expected += head.linear.scores(HISTORIES)
    np.testing.assert_allclose(head.scores(HISTORIES, texts), expected, atol=1e-5)

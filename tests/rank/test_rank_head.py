import numpy as np
import torch

from lora_rec.data.dataset import Lists
from lora_rec.rank.head import RankingHead
from lora_rec.rank.linear import decompose
from lora_rec.rank.sequence import SequencePart
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


def test_save_and_load_give_the_same_scores():
    linear = decompose(HISTORIES, n_items=20).model(regularisation=5.0, decay=0.8)
    head = RankingHead(linear, sequence(), 0.05)
    again = RankingHead.from_arrays(head.to_arrays())
    assert again.sequence_weight == 0.05
    assert again.linear.decay == 0.8
    # Double precision would make a list fifty times slower: the catalogue would be converted for each.
    assert head.user_vectors(HISTORIES).dtype == head.item_vectors().dtype == np.float32
    scores = [h.user_vectors(HISTORIES) @ h.item_vectors().T for h in (head, again)]
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-3)  # factors are kept in half precision


def test_scores_are_the_sum_of_both_parts():
    linear = decompose(HISTORIES, n_items=20).model(regularisation=5.0, decay=0.8)
    part = sequence()
    head = RankingHead(linear, part, 0.05)
    texts = GENERATOR.normal(size=(30, 4)).astype("f4")
    expected = linear.user_vectors(HISTORIES) @ linear.item_vectors().T
    expected += 0.05 * (part.user_vectors(HISTORIES, texts) @ part.items.T + part.item_bias)
    scores = head.user_vectors(HISTORIES, texts) @ head.item_vectors().T
    np.testing.assert_allclose(scores, expected, atol=1e-5)

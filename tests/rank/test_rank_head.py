import numpy as np
import torch

from lora_rec.data.dataset import Lists
from lora_rec.rank.head import RankingHead, SequencePart
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.train.head import HeadExamples, SequenceHead, train_sequence_head
from lora_rec.train.item_item import ItemItemSettings, prepare_fit

GENERATOR = np.random.default_rng(0)
HISTORIES = Lists.from_arrays([GENERATOR.permutation(20)[: 3 + n % 9] for n in range(30)])
TEXT = GENERATOR.normal(size=(20, 6)).astype("f4")


def module(history_length=5):
    torch.manual_seed(0)
    return SequenceHead(
        TEXT,
        np.bincount(HISTORIES.values, minlength=20),
        user_width=4,
        width=8,
        n_heads=3,
        history_length=history_length,
        dropout=0.1,
        id_dropout=0.3,
        min_id_count=2,
        temperature=0.2,
    )


def train(head, histories=HISTORIES, **settings):
    arguments = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "positions_per_user": 4,
    }
    return train_sequence_head(
        head,
        **(
            {"histories": histories, "examples": None, "validate": lambda _: 0.0, "seed": 0}
            | arguments
            | settings
        ),
    )


def test_numpy_scores_equal_torch():
    head = module()
    examples = HeadExamples(HISTORIES, np.zeros(30, dtype=np.int64), np.ones((30, 4), dtype="f4"))
    train(head, examples=examples)  # away from its start, where many terms are zero
    part = SequencePart(**head.to_arrays())
    users = GENERATOR.normal(size=(30, 4)).astype("f4")
    numpy_scores = part.user_vectors(HISTORIES, users) @ part.items.T + part.item_bias
    flat = HISTORIES.offsets[1:, None] - 1 - np.arange(5)
    mask = flat >= HISTORIES.offsets[:-1, None]
    padded = torch.from_numpy(np.where(mask, HISTORIES.values[np.maximum(flat, 0)], 0))
    text = torch.from_numpy(np.concatenate([users, np.ones((30, 1), "f4")], axis=1))
    with torch.no_grad():
        items = head.eval().item_inputs()
        scores = head.scores(items, head.user_vectors(items, padded, torch.from_numpy(mask), text)).numpy()
    np.testing.assert_allclose(numpy_scores, scores, atol=1e-3)


def test_it_learns_an_obvious_order():
    # After item i always comes item i + 1: chance is 1 in 20.
    chains = Lists.from_arrays([(np.arange(6) + start) % 20 for start in range(20)] * 10)
    head = module()
    arrays = train(head, chains, epochs=30, batch_size=32, learning_rate=0.02, positions_per_user=5)
    assert set(arrays) == set(SequencePart.__dataclass_fields__)
    part = SequencePart(**head.to_arrays())
    queries = Lists.from_arrays([[(start - 1) % 20, start] for start in range(20)])
    best = (part.user_vectors(queries) @ part.items.T + part.item_bias).argmax(axis=1)
    assert (best == (np.arange(20) + 1) % 20).mean() > 0.8


def make_head(weight=0.05):
    settings = ItemItemSettings(nearness=5.0, regularisation=5.0, text_weight=0.0)
    table = prepare_fit(HISTORIES, n_items=20).table(settings, n_neighbours=12)
    return RankingHead(ItemItemModel(*table, decay=0.8), SequencePart(**module().to_arrays()), weight)


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

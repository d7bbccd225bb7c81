import numpy as np
import pytest
import torch

from lora_rec.data.lists import Lists
from lora_rec.errors import TrainingError
from lora_rec.rank.sequence import SequencePart
from lora_rec.train.head import HeadExamples, cut_windows, draw_batches, train_sequence_head
from lora_rec.train.sequence import SequenceHead, co_occurrence_factors, whiten

GENERATOR = np.random.default_rng(0)
HISTORIES = Lists.from_arrays([GENERATOR.permutation(20)[: 3 + n % 9] for n in range(30)])
TEXT = GENERATOR.normal(size=(20, 6)).astype("f4")


def module(**settings):
    torch.manual_seed(0)
    arguments = {
        "user_width": 4,
        "width": 8,
        "n_blocks": 2,
        "n_heads": 2,
        "history_length": 5,
        "dropout": 0.1,
        "id_dropout": 0.3,
        "min_id_count": 2,
        "temperature": 0.2,
    }
    return SequenceHead(TEXT, np.bincount(HISTORIES.values, minlength=20), **(arguments | settings))


def train(head, histories=HISTORIES, **settings):
    arguments = {
        "histories": histories,
        "examples": HeadExamples(HISTORIES, np.zeros(30, dtype=np.int64), np.ones((30, 4), dtype="f4")),
        "validate": lambda _: 0.0,
        "seed": 0,
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
    }
    return train_sequence_head(head, **(arguments | settings))


def test_numpy_equals_torch():
    head = module(width=16)
    train(head)  # away from its start, where many terms are zero
    head.eval()
    part = SequencePart(**head.to_arrays())
    # None, one, the window's length, longer, and repeats: of different lengths in one table.
    histories = Lists.from_arrays(
        [[], [3], [1, 2, 3, 4, 5], GENERATOR.permutation(20), [7, 7, 7], [], [0, 19]]
    )
    texts = GENERATOR.normal(size=(7, 4)).astype("f4")
    for text in (None, texts):
        vectors = part.user_vectors(histories, text)
        assert vectors.dtype == np.float32
        for row, history in enumerate(histories):
            newest = torch.from_numpy(history[-5:])[None]
            given = None if text is None else torch.from_numpy(np.append(text[row], np.float32(1)))[None]
            with torch.no_grad():
                items = head.item_inputs()
                expected = head.states(items, newest, counts=torch.tensor([newest.shape[1]]), user_text=given)
            np.testing.assert_allclose(vectors[row], expected[0, -1].numpy(), atol=1e-5)
            alone = part.user_vectors(histories.take([row]), None if text is None else text[[row]])
            np.testing.assert_allclose(vectors[row], alone[0], atol=1e-5)
    assert part.user_vectors(Lists.from_arrays([])).shape == (0, 16)
    assert not np.allclose(part.user_vectors(histories, texts), part.user_vectors(histories))


def test_later_items_change_no_earlier_state():
    head = module().eval()
    table = torch.from_numpy(GENERATOR.permutation(20)[:5])[None]
    with torch.no_grad():
        items = head.item_inputs()
        before = head.states(items, table)
        changed = table.clone()
        changed[0, 3] = table[0, 0]
        after = head.states(items, changed)
    # State 0 is of the start, so item 3 is in the states from 4 on.
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_a_state_does_not_depend_on_where_its_window_was_cut():
    # What training asks of the middle of a window is what serving computes at the end of a history.
    head = module().eval()
    with torch.no_grad():
        items = head.item_inputs()
        whole = head.states(items, torch.tensor([[4, 8, 15, 16]]))
        part = head.states(items, torch.tensor([[4, 8]]))
    torch.testing.assert_close(whole[:, :3], part)


def test_the_same_seed_gives_the_same_arrays():
    first, again, other = (train(module(), seed=seed) for seed in (3, 3, 4))
    assert set(first) == set(SequencePart.__dataclass_fields__)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["items"], other["items"])


def test_user_text_is_learned_from_the_examples():
    # The text says which of two items comes; the history is always the same.
    targets = np.arange(200) % 2
    texts = np.zeros((200, 4), dtype="f4")
    texts[np.arange(200), targets] = 1
    histories = Lists.from_arrays([[5, 6, 7]] * 200)
    head = module()
    train(head, examples=HeadExamples(histories, targets, texts), epochs=30)
    part = SequencePart(**head.to_arrays())
    scores = part.user_vectors(histories, texts) @ part.items.T + part.item_bias
    assert (scores.argmax(axis=1) == targets).all()


def test_windows_make_each_item_a_target_once():
    lists = Lists.from_arrays([[], [1], GENERATOR.permutation(20)[:6], GENERATOR.permutation(20), [2, 3]])
    for seed in range(5):
        windows = cut_windows(lists, None, length=5, generator=np.random.default_rng(seed))
        assert (windows.ends - windows.begins).max() <= 6
        places = [np.arange(b, e) for b, e in zip(windows.begins, windows.ends, strict=True)]
        assert np.concatenate(places).tolist() == list(range(29))
        # A window ends where the next begins or its history does.
        assert set(np.setdiff1d(lists.offsets[1:], [0])) <= set(windows.ends)
    batches = list(draw_batches(windows.ends - windows.begins, 8, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches)) == list(range(len(windows.begins)))


def test_id_dropout_leaves_the_text_alone():
    head = module(id_dropout=0.5, min_id_count=0)
    head.train()
    with torch.no_grad():
        head.residuals.normal_()
        projected = head.text_projection(head.text)
        without = torch.nn.functional.normalize(projected, dim=1)
        complete = torch.nn.functional.normalize(projected + head.residuals, dim=1)
        left_out = torch.zeros(20)
        for _ in range(200):
            items = head.item_inputs()
            alone = torch.isclose(items, without, atol=1e-6).all(dim=1)
            assert (alone | torch.isclose(items, complete, atol=1e-6).all(dim=1)).all()
            left_out += alone
        # 4,000 fair coins: a share outside these bounds is 6 standard errors off.
        assert 0.45 < left_out.mean() / 200 < 0.55
        torch.testing.assert_close(head.eval().item_inputs(), complete)


def test_an_item_that_nobody_had_is_its_text():
    head = module(min_id_count=1)
    head.has_id[3] = 0
    train(head)
    items = head.to_arrays()["items"]
    with torch.no_grad():
        text = torch.nn.functional.normalize(head.text_projection(head.text[3]), dim=0)
    np.testing.assert_allclose(items[3], text.numpy(), atol=1e-6)


def test_whitened_directions_have_one_variance():
    white = whiten(GENERATOR.normal(size=(50, 9)) * np.arange(9), width=4)
    assert white.shape == (50, 4)  # of the nine, one is constant, and four are asked for
    np.testing.assert_allclose(white.T @ white, 50 / 4 * np.eye(4), atol=1e-4)
    np.testing.assert_allclose((white**2).sum(axis=1).mean(), 1, atol=1e-5)
    assert whiten(np.ones((3, 2)), width=2).shape == (3, 0)


def test_items_that_the_same_users_had_start_close_together():
    of_one = [GENERATOR.choice(10, 6, replace=False) + 10 * (n % 2) for n in range(60)]
    # Some users had both: two groups without a link have two equal leading directions, and any mix of them.
    of_both = [GENERATOR.choice(20, 6, replace=False) for _ in range(20)]
    factors = co_occurrence_factors(Lists.from_arrays(of_one + of_both), n_items=22, width=1)
    # One direction beside popularity tells the two groups apart; nobody had the last two items.
    signs = factors[:20, 0].sign().numpy()
    assert abs(signs[:10].sum()) == abs(signs[10:].sum()) == 10
    assert signs[0] != signs[10]
    assert not factors[20:].any()
    few = co_occurrence_factors(Lists.from_arrays([[0, 1], []]), n_items=3, width=8)
    assert few.shape == (3, 8)
    assert few.isfinite().all()


@pytest.mark.parametrize("largest", [20, 19])
def test_it_learns_an_obvious_order(monkeypatch, largest):
    # After item i always comes item i + 1: chance is 1 in 20, and so is popularity. With 19, it samples.
    monkeypatch.setattr("lora_rec.train.sequence.FULL_SOFTMAX_ITEMS", largest)
    monkeypatch.setattr("lora_rec.train.sequence.N_SAMPLED", 10)
    chains = Lists.from_arrays([(np.arange(9) + start) % 20 for start in range(20)] * 5)
    head = module()
    train(head, chains, examples=None, epochs=20)
    part = SequencePart(**head.to_arrays())
    queries = Lists.from_arrays([[(start - 1) % 20, start] for start in range(20)])
    best = (part.user_vectors(queries) @ part.items.T + part.item_bias).argmax(axis=1)
    assert (best == (np.arange(20) + 1) % 20).mean() > 0.8


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(TrainingError, match=r"the loss is nan; lower head.learning_rate \(1e\+30\)"):
        train(module(), learning_rate=1e30)


def test_what_the_user_had_is_seen_and_not_asked_for():
    lists = Lists.from_arrays([[0, 0, 0, 1], [2, 0, 2, 1], [3]] * 40)
    windows = cut_windows(lists, None, length=5, generator=np.random.default_rng(0))
    assert windows.is_repeat[:9].tolist() == [False, True, True, False, False, False, True, False, False]
    head = module(history_length=5)
    train(head, histories=lists, examples=None, epochs=20)
    part = SequencePart(**head.to_arrays())
    for history in ([0, 0], [0, 0, 0], [2, 0, 2]):
        assert part.scores(Lists.from_arrays([history]))[0].argmax() == 1


def test_histories_of_one_item_again_and_again_teach_their_first_alone():
    head = module()
    arrays = train(head, histories=Lists.from_arrays([[4] * 12] * 8), examples=None)
    assert all(np.isfinite(values).all() for values in arrays.values())
    assert SequencePart(**arrays).scores(Lists.from_arrays([[]]))[0].argmax() == 4

import numpy as np
from transformers import AutoTokenizer

from lora_rec.text.collate import plan_micro_batches, tokenize


def test_every_text_once_and_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 40, size=200)
    batches = plan_micro_batches(lengths, token_budget=100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= 100


def test_a_micro_batch_is_cut_where_that_saves_padding():
    lengths = np.array([10] * 20 + [100])
    assert [len(b) for b in plan_micro_batches(lengths, token_budget=6400)] == [20, 1]  # saves 1,800 of 2,100
    lengths = np.array([10] * 2 + [30, 100])  # saves 140, then 40; a micro-batch costs 100
    assert [b.tolist() for b in plan_micro_batches(lengths, token_budget=6400)] == [[0, 1, 2], [3]]
    assert [b.tolist() for b in plan_micro_batches(np.array([5, 4, 5]), token_budget=6400)] == [[1, 0, 2]]


def test_a_text_beyond_the_budget_goes_alone():
    assert [b.tolist() for b in plan_micro_batches(np.array([3, 500]), token_budget=10)] == [[0], [1]]


def test_an_empty_text_has_one_real_token(models):
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    tokens = tokenize(tokenizer, ["", "war1 war2"], max_tokens=8)
    assert tokens.lengths.tolist() == [1, 2]
    assert tokens[0].tolist() == [tokenizer.eos_token_id]


def test_a_prompt_is_cut_at_its_start(models):
    tokenizer = AutoTokenizer.from_pretrained(models["bert"])
    whole, cut, usual = (
        tokenize(tokenizer, ["war1 war2 war3 war4"], max_tokens=n, keep_end=end)[0].tolist()
        for n, end in ((9, True), (4, True), (4, False))
    )
    assert cut == [whole[0], *whole[-3:]]
    assert usual == [*whole[:3], whole[-1]]


def test_a_batch_is_padded_to_its_longest(models):
    tokens = tokenize(AutoTokenizer.from_pretrained(models["bert"]), ["war1", "war1 war2 war3"], max_tokens=4)
    batch = tokens.batch(np.array([0, 1]))
    assert batch.attention_mask.tolist() == [
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]  # cut at four, [CLS] and [SEP] among them

"""A tower that answers yes or no."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import make_tower
from tiny_models import tiny_config, write_tokenizer
from tiny_names import TITLES
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

import lora_rec.train.prompts as prompts_module
from lora_rec.errors import TowerError
from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import tokenize
from lora_rec.text.prompts import like_prompt
from lora_rec.train.prompts import answer_by_yes_or_no, confident, most_uncertain

SETTINGS = {
    "epochs": 12,
    "patience": 99,
    "batch_size": 8,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "token_budget": 400,
    "seed": 0,
}


@pytest.fixture(scope="module")
def speaker(models, tmp_path_factory):
    """The tiny Llama as a whole language model whose tokenizer knows both answers."""

    def make(tied):
        folder = tmp_path_factory.mktemp("speaker") / str(tied)
        old = Tokenizer.from_file(str(models["llama"] / "tokenizer.json"))
        words = ["yes", "no", "liked", "like", "not", "user", "Did", "The"]
        old.add_tokens(words)
        names = {"unk_token": "<unk>", "eos_token": "<eos>"}
        PreTrainedTokenizerFast(tokenizer_object=old, **names).save_pretrained(folder)
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(models["llama"])
        config.vocab_size, config.tie_word_embeddings = old.get_vocab_size(), tied
        config.max_position_embeddings = 128
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
        model.save_pretrained(folder)
        return folder

    return {tied: make(tied) for tied in (True, False)}


def prompts():
    """Likes of one kind, and an item of that kind (yes) or of the other (no)."""
    generator = np.random.default_rng(0)
    texts, labels = [], []
    for _ in range(48):
        kind, same = generator.integers(2), bool(generator.integers(2))
        own = [TITLES[20 * kind + n] for n in generator.permutation(20)[:3]]
        other = [TITLES[20 * (1 - kind) + n] for n in generator.permutation(20)[:2]]
        item = TITLES[20 * (kind if same else 1 - kind) + generator.integers(20)]
        texts.append(like_prompt(own, other, item))
        labels.append(same)
    return texts, np.array(labels)


def opened(folder, **settings):
    torch.manual_seed(0)
    section = TowerSection(backbone=str(folder), **({"trained_layers": None, "lora_rank": 8} | settings))
    tower = build_tower(section, width=8, where="item_tower")
    texts, labels = prompts()
    tokens = tokenize(tower.backbone_info.tokenizer, texts, max_tokens=96, keep_end=True)
    return answer_by_yes_or_no(tower), tokens, labels


def rising():
    """A validation by which every epoch is the best."""
    scores = iter(range(100))
    return lambda: float(next(scores))


@pytest.mark.parametrize("tied", [True, False])
def test_before_training_it_says_what_the_language_model_says(speaker, tied):
    asked, source, _ = opened(speaker[tied])
    every = np.arange(len(source))
    found = asked.log_odds(source, every, token_budget=300)
    whole = AutoModelForCausalLM.from_pretrained(speaker[tied], dtype=torch.float32).eval()
    tokenizer = asked.tower.backbone_info.tokenizer
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    for row in (0, 7):
        ids = torch.from_numpy(source[row].astype(np.int64))[None]
        with torch.no_grad():
            logits = whole(ids).logits[0, -1]
        assert found[row] == pytest.approx((logits[yes] - logits[no]).item(), abs=1e-4)


def test_it_learns_what_is_obvious(speaker):
    asked, source, labels = opened(speaker[True])
    train = np.arange(40)
    frozen = {n: p.clone() for n, p in asked.tower.named_parameters() if not p.requires_grad}
    result = asked.train_on(source, train, labels[:40], Accelerator(cpu=True), validate=rising(), **SETTINGS)
    losses = [epoch.loss for epoch in result.epochs]
    assert losses[-1] < 0.6 * losses[0]
    assert ((asked.log_odds(source, train, token_budget=400) > 0) == labels[:40]).mean() > 0.85
    assert all(torch.equal(p, frozen[n]) for n, p in asked.tower.named_parameters() if n in frozen)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "8bit"},
        {"precision": "4bit"},
        {"adapter": "adalora", "lora_rank": None, "init_rank": 6, "target_rank": 2},
    ],
)
def test_other_precisions_and_adapters(speaker, settings):
    asked, source, labels = opened(speaker[True], **settings)
    few = SETTINGS | {"epochs": 4}
    accelerator = Accelerator(cpu=True)
    result = asked.train_on(source, np.arange(24), labels[:24], accelerator, validate=rising(), **few)
    losses = [epoch.loss for epoch in result.epochs]
    assert losses[-1] < losses[0]
    if settings.get("adapter") == "adalora":
        pattern = asked.tower.model.peft_config["default"].rank_pattern
        kept = sum(sum(ranks) for ranks in pattern.values())
        assert 0 < kept <= 2 * len(pattern)  # of six at the start


def test_micro_batches_do_not_change_the_result(speaker):
    found = []
    for budget in (100, 100_000):
        asked, source, labels = opened(speaker[True])
        few = SETTINGS | {"epochs": 1, "token_budget": budget}
        asked.train_on(source, np.arange(16), labels[:16], Accelerator(cpu=True), validate=rising(), **few)
        found.append(asked.log_odds(source, np.arange(16), token_budget=budget))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_the_state_that_validates_best_is_kept(speaker):
    asked, source, labels = opened(speaker[True])
    scores, found = iter([0.5, 0.6, 0.7, 0.4, 0.3]), []

    def validate():
        found.append(asked.log_odds(source, np.arange(4), token_budget=400))
        return next(scores)

    few = SETTINGS | {"epochs": 9, "patience": 2}
    result = asked.train_on(
        source, np.arange(16), labels[:16], Accelerator(cpu=True), validate=validate, **few
    )
    assert (result.best_epoch, len(result.epochs)) == (2, 4)
    kept = asked.log_odds(source, np.arange(4), token_budget=400)
    np.testing.assert_allclose(kept, found[2], atol=1e-5)
    assert np.abs(found[4] - kept).max() > 1e-3


def test_what_cannot_answer_is_refused(models, speaker):
    with pytest.raises(TowerError, match="this tower is an encoder that pools 'mean'; use a GPT-type"):
        answer_by_yes_or_no(make_tower(models["bert"]))
    with pytest.raises(TowerError, match="one token for ' yes' and ' no'"):
        answer_by_yes_or_no(make_tower(models["llama"]))  # both are unknown to its tokenizer
    assert json.loads((speaker[True] / "config.json").read_text())["tie_word_embeddings"]


def test_an_answer_is_the_token_that_follows_the_prompt(tmp_path):
    # LLaMA's tokenizer puts a space before every text, so " yes" alone begins with the token of a space.
    letters = ["<unk>", "<eos>", "\u2581", *sorted(set("Answer yes or no:") - {" "})]
    vocabulary = {token: place for place, token in enumerate(letters)}
    merges = [("y", "e"), ("ye", "s"), ("\u2581", "yes"), ("n", "o"), ("\u2581", "no")]
    for pair in merges:
        vocabulary.setdefault("".join(pair), len(vocabulary))
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    folder, names = tmp_path / "llama-like", {"unk_token": "<unk>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = AutoConfig.for_model(
        "llama",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        vocab_size=len(vocabulary),
        tie_word_embeddings=True,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tower = make_tower(folder, pooling="last", trained_layers=1)
    answers = answer_by_yes_or_no(tower)
    rows = tower.backbone_info.embeddings.weight[[vocabulary["\u2581yes"], vocabulary["\u2581no"]]]
    torch.testing.assert_close(answers.rows, rows.detach().float())


def test_labels_for_self_training_and_active_learning():
    log_odds = np.array([0.0, 4.0, -4.0, 0.5, -0.1], dtype=np.float32)
    chosen, labels = confident(log_odds, threshold=0.95)
    assert (chosen.tolist(), labels.tolist()) == ([1, 2], [True, False])
    assert most_uncertain(log_odds, n=3).tolist() == [0, 4, 3]


@pytest.mark.parametrize("name", ["phi", "gemma2"])
def test_the_heads_bias_and_soft_cap_are_part_of_the_answer(name, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts_module, "YES", "war1")
    monkeypatch.setattr(prompts_module, "NO", "love1")
    size = write_tokenizer(tmp_path, encoder=False)
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(tiny_config(name, vocab_size=size)).eval()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    whole.save_pretrained(tmp_path)
    asked = answer_by_yes_or_no(make_tower(tmp_path, pooling="last"))
    tokenizer = asked.tower.backbone_info.tokenizer
    source = tokenize(tokenizer, ["war war2 love3", "love love5 war7"], max_tokens=32)
    found = asked.log_odds(source, np.arange(2), token_budget=500)
    yes, no = tokenizer.convert_tokens_to_ids(["war1", "love1"])
    for row in range(2):
        with torch.no_grad():
            logits = whole(torch.from_numpy(source[row].astype(np.int64))[None]).logits[0, -1]
        assert found[row] == pytest.approx((logits[yes] - logits[no]).item(), abs=1e-3)

"""The losses of the tasks without labels as arithmetic: the whole model, text by text, no cache."""

import math

import numpy as np
import pytest
import torch
from tiny_tasks import TASKS, learner_of, recipe_of, write_shop

import lora_rec.train.tasks.tokens as token_tasks
from lora_rec.data.lists import Lists
from lora_rec.text.collate import TokenizedTexts
from lora_rec.text.entities import read_tags
from lora_rec.towers.lm_head import TiedHead
from lora_rec.train.tasks.entities import EntityRecognition, f1
from lora_rec.train.tasks.losses import IGNORED, contrastive_loss, shared_label_loss
from lora_rec.train.tasks.mlm import Vocabulary, mask_tokens
from lora_rec.train.tasks.nsp import draw_pairs
from lora_rec.train.tasks.task import Work


@pytest.fixture
def shop(tmp_path, models):
    return write_shop(tmp_path, models)


def states_of(tower, ids):
    """(L, H), one text through the whole model, adapter and all."""
    info = tower.backbone_info
    ids = torch.tensor(ids, dtype=torch.long)[None]
    return tower.model(input_ids=ids, attention_mask=torch.ones_like(ids), **info.options).last_hidden_state[
        0
    ]


def token_loss(task, tower, texts, labels):
    """-1/n sum over n asked tokens of log softmax."""
    terms = []
    for ids, wanted in zip(texts, labels, strict=True):
        logits = task.head(states_of(tower, ids))
        for place, label in enumerate(wanted):
            if label != IGNORED:
                terms.append(logits[place, label] - logits[place].exp().sum().log())
    return -sum(terms) / len(terms)


def class_loss(task, tower, texts, shares):
    """-1/n sum over n texts of each class's share times log softmax, of the mean or last state."""
    terms = []
    for ids, own in zip(texts, shares, strict=True):
        states = states_of(tower, ids)
        logits = task.head(states.mean(dim=0) if tower.pooling == "mean" else states[-1])
        log_shares = logits - logits.exp().sum().log()
        terms.append(sum(float(share) * log_shares[c] for c, share in enumerate(own)))
    return -sum(terms) / len(terms)


def view_loss(tower, first, second, temperature):
    """NT-Xent; see `losses.contrastive_loss`."""
    texts = [*first, *second]
    vectors = []
    for ids in texts:
        states = states_of(tower, ids)
        pooled = states.mean(dim=0) if tower.pooling == "mean" else states[-1]
        vectors.append(pooled / pooled.norm())
    n, terms = len(texts), []
    for i in range(n):
        partner = (i + n // 2) % n
        total = (vectors[i] @ vectors[partner] / temperature).exp()
        for j in range(n):
            if texts[j] != texts[i] and texts[j] != texts[partner]:
                total = total + (vectors[i] @ vectors[j] / temperature).exp()
        terms.append(vectors[i] @ vectors[partner] / temperature - total.log())
    return -sum(terms) / n


def expected_loss(task, tower, rows, generator):
    """The loss of a task's examples, from what it would read."""
    tokenizer = tower.backbone_info.tokenizer

    def rows_of(labelled, indices):
        starts, ends = labelled.offsets[indices], labelled.offsets[np.asarray(indices) + 1]
        return [labelled.labels[a:b].tolist() for a, b in zip(starts, ends, strict=True)]

    if task.name == "mlm":
        masked = mask_tokens(
            task._train.take(rows), generator, vocabulary=task._vocabulary, share=task._share
        )
        every = np.arange(len(rows))
        return token_loss(task, tower, [masked.source[i].tolist() for i in every], rows_of(masked, every))
    if task.name in ("clm", "entities"):
        chosen = task._train[rows]
        texts = [task._texts.source[i].tolist() for i in chosen]
        labels = rows_of(task._texts, chosen)
        if task.name == "clm":
            assert labels == [[*ids[1:], IGNORED] for ids in texts]
        return token_loss(task, tower, texts, labels)
    if task.name in ("category", "nsp"):
        chosen = task._train[rows]
        return class_loss(task, tower, [task._source[i].tolist() for i in chosen], task._shares[chosen])
    if task.name == "item_views":
        texts = task._train.draw(rows, generator)
    else:
        stretches = []
        for row in rows:
            history = task._train.histories[int(row)]
            end = int(generator.integers(4, len(history) + 1))
            stretches.append(history[end - 4 : end])
        texts = [task._train._view(stretch, generator) for _ in range(2) for stretch in stretches]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return view_loss(tower, ids[: len(rows)], ids[len(rows) :], task._temperature)


@pytest.mark.parametrize("name", TASKS)
def test_loss_and_gradients_are_those_of_the_formula(shop, models, name):
    """In micro-batches, each text once; the formula has neither."""
    model, (task,), objective = learner_of(recipe_of(shop, [name], models=models, prefix_cache=False))
    tower, rows = model.tower, np.arange(6)
    for parameter in tower.trained_parameters().values():  # LoRA's B is zero, and A without a gradient
        torch.nn.init.normal_(parameter, std=0.1)
    work = Work(objective.accelerator, tower, token_budget=32)
    found = task.learn(work, rows, np.random.default_rng(5), weight=0.5, seed=1)
    gradients = {n: p.grad.clone() for n, p in model.trained_parameters().items()}
    model.zero_grad()
    expected = expected_loss(task, tower, rows, np.random.default_rng(5))
    (0.5 * expected).backward()
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert len(gradients) > 4
    for parameter_name, parameter in model.trained_parameters().items():
        torch.testing.assert_close(
            gradients[parameter_name], parameter.grad, atol=2e-5, rtol=1e-3, msg=parameter_name
        )
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", ["clm", "nsp", "category", "entities"])
def test_cached_losses_are_near_to_uncached_ones(shop, models, name):
    losses = []
    for cached in (True, False):
        _, (task,), objective = learner_of(recipe_of(shop, [name], models=models, prefix_cache=cached))
        source = task._texts.source if hasattr(task, "_texts") else task._source
        assert isinstance(source, TokenizedTexts) != cached
        losses.append(objective.validate()[name].loss)
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)  # the cache is in half precision


def test_scores_in_blocks_are_those_at_once(monkeypatch):
    torch.manual_seed(0)
    head, labels = torch.nn.Linear(4, 9), torch.randint(9, (3, 5))
    labels[0, 2] = IGNORED
    states = torch.randn(3, 5, 4, requires_grad=True)
    found = []
    for rows in (100, 4):
        monkeypatch.setattr(token_tasks, "LOGIT_ROWS", rows)
        loss = token_tasks.summed_loss(head, states, labels)
        found.append((loss, torch.autograd.grad(loss, states)[0]))
    torch.testing.assert_close(found[0], found[1])
    kept = labels != IGNORED
    log_shares = head(states[kept]).log_softmax(dim=1)
    torch.testing.assert_close(found[0][0], -sum(log_shares[i, c] for i, c in enumerate(labels[kept])))


def test_the_contrastive_loss_by_hand():
    one = torch.eye(2)
    other = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    none = torch.eye(4, dtype=torch.bool)
    # View 0 (1, 0) has its partner 2 at cosine 1, view 3 at 1, view 1 at 0; view 1 its partner 3 at 0, ...
    e = math.e
    terms = [e / (e + e + 1), 1 / (1 + 1 + 1), e / (e + e + 1), 1 / (e + e + 1)]
    expected = -sum(map(math.log, terms)) / 4
    assert float(contrastive_loss(one, other, same=none, temperature=1.0)) == pytest.approx(expected)
    same = none.clone()
    same[2, 3] = same[3, 2] = True  # the second views are one text: neither is the other's negative
    terms = [e / (e + 1), 1 / (1 + 1), e / (e + 1), 1 / (1 + e)]
    expected = -sum(map(math.log, terms)) / 4
    assert float(contrastive_loss(one, other, same=same, temperature=1.0)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="temperature: 0 is not positive"):
        contrastive_loss(one, other, same=none, temperature=0)
    with pytest.raises(ValueError, match="views"):
        contrastive_loss(one, other[:1], same=none, temperature=1)


def test_labels_that_share_one_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    expected = -(0.5 * math.log(0.5) + 0.5 * math.log(0.3) + math.log(0.8))
    assert float(shared_label_loss(logits, shares)) == pytest.approx(expected)


def test_masking_hides_the_shares_that_it_says():
    """10,000 words in texts of ten; bounds of five standard deviations, which chance does not reach."""
    generator = np.random.default_rng(0)
    ids = generator.integers(10, 1000, size=12_000).astype(np.int32).reshape(1000, 12)
    ids[:, 0], ids[:, -1] = 2, 3
    tokens = TokenizedTexts(ids.ravel(), np.arange(0, 12_001, 12))
    vocabulary = Vocabulary(mask_token=4, special=np.arange(10), size=1000)
    masked = mask_tokens(tokens, generator, vocabulary=vocabulary, share=0.2)
    asked = (masked.labels != IGNORED).reshape(1000, 12)
    assert (asked.sum(axis=1) == 2).all()  # a fifth of ten words
    assert not asked[:, [0, -1]].any()
    places = asked.ravel()
    assert np.array_equal(masked.labels[places], tokens.ids[places])
    assert np.array_equal(masked.source.ids[~places], tokens.ids[~places])
    new, old = masked.source.ids[places], tokens.ids[places]
    n = len(new)
    for found, share in (((new == 4).sum(), 0.8), ((new == old).sum(), 0.1)):
        assert abs(found - share * n) < 5 * math.sqrt(n * share * (1 - share))
    others = new[(new != 4) & (new != old)]
    assert abs(len(others) - 0.1 * n) < 5 * math.sqrt(n * 0.09)
    assert others.min() >= 10


def test_a_short_text_has_one_hidden_token():
    tokens = TokenizedTexts(np.array([2, 11, 3], np.int32), np.array([0, 3]))
    vocabulary = Vocabulary(mask_token=4, special=np.arange(10), size=20)
    masked = mask_tokens(tokens, np.random.default_rng(0), vocabulary=vocabulary, share=0.15)
    assert masked.labels.tolist() == [IGNORED, 11, IGNORED]


def test_pairs_are_half_neighbours_and_strangers_are_as_popular():
    generator = np.random.default_rng(0)
    # Item 0 is in every history; popularity must not tell neighbours from strangers.
    sequences = [np.append(generator.permutation(np.arange(1, 40))[:6], 0) for _ in range(300)]
    pairs = draw_pairs(Lists.from_arrays(sequences), per_sequence=4, seed=0)
    follow = pairs.follow
    for first, second, number in zip(
        pairs.firsts[follow], pairs.seconds[follow], pairs.sequences[follow], strict=True
    ):
        places = np.flatnonzero(sequences[number] == first)
        assert any(place + 1 < 7 and sequences[number][place + 1] == second for place in places)
    for second, number in zip(pairs.seconds[~follow], pairs.sequences[~follow], strict=True):
        assert second not in sequences[number]
    assert (~follow).sum() > 0.95 * follow.sum()
    assert draw_pairs(Lists.from_arrays([[1, 1]]), per_sequence=2, seed=0).follow.tolist() == []


def test_names_count_as_found_when_all_of_them_is_right():
    wanted = read_tags([0, 1, 2, 0, 3])
    assert f1(hits=len(wanted & read_tags([0, 1, 2, 0, 3])), right=2, told=2) == 1.0
    told = read_tags([0, 1, 0, 0, 3])
    assert f1(hits=len(wanted & told), right=len(wanted), told=len(told)) == 2 * (1 / 2) * (1 / 2) / (
        1 / 2 + 1 / 2
    )
    assert f1(hits=0, right=0, told=0) == 0.0


def test_several_tasks_add_up_and_go_round(shop, models):
    recipe = recipe_of(shop, ["mlm", "category"], models=models, batch_size=8)
    _, tasks, objective = learner_of(recipe)
    assert [objective._n_own(task) for task in tasks] == [tasks[0].n_examples // 8, 32 // 8]
    seen = []
    for epoch in (1, 2, 3):
        batches = objective.batches(epoch)
        assert len(batches) == tasks[0].n_examples // 8
        assert sorted(np.concatenate([rows for rows, _ in batches])) == list(range(tasks[0].n_examples))
        seen += [rows for _, rows in batches]
    for begin in range(0, len(seen) // 4 * 4, 4):  # the smaller task has all of its examples in 4 steps
        assert sorted(np.concatenate(seen[begin : begin + 4])) == list(range(32))
    assert not np.array_equal(seen[0], seen[4])
    one = objective.gradients(objective.batches(1)[0], 1, 4096).loss
    work = Work(objective.accelerator, objective.tower, 4096)
    parts = [
        task.learn(work, rows, np.random.default_rng([0, 1, number, 1]), weight=1.0, seed=2 + number)
        for number, (task, rows) in enumerate(zip(tasks, objective.batches(1)[0], strict=True))
    ]
    assert one == pytest.approx(sum(parts))


def test_a_loss_that_is_no_number_names_its_task(shop, models):
    from lora_rec.errors import TrainingError

    model, (task,), objective = learner_of(recipe_of(shop, ["category"], models=models))
    with torch.no_grad():
        task.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the loss of category is nan at step 1; lower train.learning_"):
        objective.gradients(objective.batches(1)[0], 1, 4096)


def test_the_tiny_checkpoints_have_no_head_of_their_own(shop, models):
    _, (task,), _ = learner_of(recipe_of(shop, ["mlm"], models=models))
    assert isinstance(task.head, TiedHead)


def test_where_no_token_is_asked_the_gradients_are_zero():
    states = torch.ones(2, 3, 4, requires_grad=True)
    loss = token_tasks.summed_loss(torch.nn.Linear(4, 5), states, torch.full((2, 3), IGNORED))
    loss.backward()
    assert loss == 0 and not states.grad.any()


def test_a_text_without_tokens_names_nobody():
    texts = {"train": np.arange(2), "held_out": np.array([2, 3])}
    tags = [[IGNORED, 1, IGNORED], [IGNORED, IGNORED], [], [IGNORED, 0]]
    task = EntityRecognition(None, tags, n_kinds=1, hidden_size=4, **texts)
    assert (task.n_examples, task.n_held_out) == (1, 1)

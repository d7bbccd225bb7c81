"""Losses of phase two against values written as arithmetic."""

import math

import numpy as np
import pytest
import torch

from lora_rec.data.examples import draw_examples
from lora_rec.data.lists import Lists
from lora_rec.train.objectives import Material, Objectives
from lora_rec.train.objectives.labels import class_loss, interest_logits, interest_loss, tags_loss
from lora_rec.train.objectives.ranking import bpr_loss, drawn_softmax_loss, listwise_loss
from lora_rec.train.projections import Teacher

# One user; scores over the temperature .5 are 2, 0, -2.
USERS = torch.tensor([[1.0, 0.0]])
ITEMS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
PAIR = {"positive_users": torch.tensor([0]), "positive_items": torch.tensor([0]), "temperature": 0.5}
e, log = math.exp, math.log


def log_sigmoid(x):
    return -log(1 + e(-x))


def drawn(counts, **changes):
    counts = torch.tensor([counts], dtype=torch.float32).log()
    return drawn_softmax_loss(USERS, ITEMS, log_counts=counts, **(PAIR | changes)).item()


def test_drawn_negatives_stand_for_as_many_items_as_they_count():
    assert drawn([0, 3, 1]) == pytest.approx(-log(e(2) / (e(2) + 3 * e(0) + e(-2))))
    assert drawn([0, 0, 5]) == pytest.approx(-log(e(2) / (e(2) + 5 * e(-2))))
    assert drawn([0, 0, 0]) == pytest.approx(0)  # nothing to tell it from


def test_a_user_without_negatives_has_a_gradient_of_zero():
    users = USERS.clone().requires_grad_()
    counts = torch.full((1, 3), -torch.inf)
    drawn_softmax_loss(users, ITEMS, log_counts=counts, label_smoothing=0.2, **PAIR).backward()
    assert users.grad.tolist() == [[0, 0]]


def test_drawn_negatives_are_right_on_average():
    """Halves of the catalogue, each item for two: the mean of the sums is the sum over all."""
    generator = torch.Generator().manual_seed(0)
    items = torch.nn.functional.normalize(torch.randn(12, 4, generator=generator), dim=1)
    user = torch.nn.functional.normalize(torch.randn(1, 4, generator=generator), dim=1)
    scores = (user @ items.T)[0] / 0.5
    sums = []
    for half in (torch.arange(12) % 2, 1 - torch.arange(12) % 2):
        counts = torch.where(half.bool(), log(2.0), -torch.inf)
        counts[0] = -torch.inf
        # exp(loss) is 1 + (sum over negatives) / exp(score of the positive)
        loss = drawn_softmax_loss(user, items, log_counts=counts[None], **PAIR)
        sums.append((loss.exp() - 1) * scores[0].exp())
    assert sum(sums).item() / 2 == pytest.approx(scores[1:].exp().sum().item(), rel=1e-5)


def test_smoothing_spreads_the_label_over_the_negatives():
    total = log(e(2) + 3 * e(0) + e(-2))
    others = (3 * 0 + 1 * -2) / 4
    assert drawn([0, 3, 1], label_smoothing=0.2) == pytest.approx(0.8 * (total - 2) + 0.2 * (total - others))


def scored_alike(n_items=600, n_new=200, n_users=400):
    """Material in which some items are popular, some are new, and every user scores every item alike."""
    generator = np.random.default_rng(0)
    chances = 1 / np.arange(1, n_items - n_new + 1)
    histories = Lists.from_arrays(
        generator.choice(n_items - n_new, size=12, replace=False, p=chances / chances.sum())
        for _ in range(n_users)
    )
    examples = draw_examples(histories, per_user=4, history_length=5, n_targets=2, seed=0)
    counts = np.bincount(histories.values, minlength=n_items)
    vectors = np.ones((n_items, 1), "f4"), np.ones((len(examples), 1), "f4")
    teacher = Teacher(*vectors, knows=counts > 0)
    return Material(examples, np.arange(len(examples)), histories, counts, teacher)


def shares_of_items(name, *, correction=1.0, extra_items=64, n_steps=60):
    """What the softmax gives each item, added up over steps: its gradient without the labels."""
    material = scored_alike()
    objectives = Objectives(material, {name: 1.0}, False, 0.07, correction, 0.0, extra_items, 0, 0, 2, 0)
    total = np.zeros(material.n_items)
    for step in range(1, n_steps + 1):
        rows = np.random.default_rng(step).permutation(len(material.examples))[:64]
        batch = objectives.draw(rows, step, None)
        items = torch.ones(len(batch.items), 1, requires_grad=True)
        objectives.losses(batch, torch.ones(len(batch.texts), 1), items, {})[name].backward()
        labels = np.bincount(batch.positive_items.numpy(), minlength=len(batch.items))
        total[batch.items] += items.grad[:, 0].numpy() * 0.07 + labels / labels.sum()
    return material, total / total.sum()


@pytest.mark.parametrize(
    ("name", "extra_items"), [("softmax", 64), ("softmax", 300), ("sampled_softmax", 64)]
)
def test_a_softmax_over_a_batch_stands_for_one_over_all_that_was_taken(name, extra_items):
    material, shares = shares_of_items(name, extra_items=extra_items)
    taken = material.item_counts > 0
    assert not shares[~taken].any()
    order = np.argsort(-material.item_counts[taken])
    for part in np.array_split(shares[taken][order], 4):  # from the popular to the rare
        assert part.sum() == pytest.approx(0.25, abs=0.04)


def test_without_the_correction_popular_items_are_pushed_down():
    material, shares = shares_of_items("softmax", correction=0.0)
    _, corrected = shares_of_items("softmax")
    popular = np.argsort(-material.item_counts)[:40]
    assert shares[popular].sum() > 1.5 * corrected[popular].sum()


def test_what_the_teacher_does_not_know_is_not_aligned():
    material = scored_alike()
    objectives = Objectives(material, {"alignment": 1.0}, False, 0.07, 1.0, 0.0, 8, 0, 0, 2, 0)
    batch = objectives.draw(np.arange(6), 1, None)
    items = torch.zeros(len(batch.items), 1, requires_grad=True)
    material.teacher.knows[batch.items[2]] = False
    objectives.losses(batch, torch.ones(len(batch.texts), 1), items, {})["alignment"].backward()
    assert (items.grad[:, 0] == 0).tolist() == [place == 2 for place in range(len(items))]


def bpr(mask, **changes):
    return bpr_loss(USERS, ITEMS, negative_mask=torch.tensor([mask]), **(PAIR | changes)).item()


def test_bpr_by_hand():
    assert bpr([False, True, True]) == pytest.approx(-(log_sigmoid(2 - 0) + log_sigmoid(2 + 2)) / 2)
    assert bpr([False, True, False]) == pytest.approx(-log_sigmoid(2))
    assert bpr([False, False, False]) == 0
    smoothed = 0.9 * -log_sigmoid(2) + 0.1 * -log_sigmoid(-2)
    assert bpr([False, True, False], label_smoothing=0.1) == pytest.approx(smoothed)


def test_listwise_by_hand():
    scores = torch.tensor([[2.0, 0.0, -2.0], [1.0, 3.0, 99.0]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    clicks = torch.tensor([[True, False, True], [True, False, False]])
    first = [log(e(s) / (e(2) + e(0) + e(-2))) for s in (2, 0, -2)]
    second = [log(e(s) / (e(1) + e(3))) for s in (1, 3)]
    expected = -((first[0] + first[2]) / 2 + second[0]) / 2
    assert listwise_loss(scores, clicks, present).item() == pytest.approx(expected)
    smoothed = -((first[0] + first[2]) / 2 * 0.7 + 0.3 * sum(first) / 3) / 2
    smoothed -= (second[0] * 0.7 + 0.3 * sum(second) / 2) / 2
    assert listwise_loss(scores, clicks, present, label_smoothing=0.3).item() == pytest.approx(smoothed)


def test_interest_by_hand():
    weights = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    logits = interest_logits(
        torch.tensor([[0.6, 0.8]]),
        torch.tensor([[0.8, 0.6]]),
        weights=weights,
        bias=torch.tensor([0.1]),
        temperature=0.5,
    )
    assert logits.item() == pytest.approx((0.48 + 0.48) / 0.5 + 2 * 0.6 + 3 * 0.6 + 0.1)
    logits, labels = torch.tensor([2.0, -1.0]), torch.tensor([True, False])
    assert interest_loss(logits, labels).item() == pytest.approx(-(log_sigmoid(2) + log_sigmoid(1)) / 2)
    smoothed = (
        -(0.9 * log_sigmoid(2) + 0.1 * log_sigmoid(-2) + 0.9 * log_sigmoid(1) + 0.1 * log_sigmoid(-1)) / 2
    )
    assert interest_loss(logits, labels, label_smoothing=0.2).item() == pytest.approx(smoothed)


def test_classes_by_hand():
    logits = torch.tensor([[1.0, 0.0, 2.0], [5.0, 5.0, 5.0]])
    total = e(1) + e(0) + e(2)
    labels = torch.tensor([2, -1])  # the second item has none
    assert class_loss(logits, labels).item() == pytest.approx(-log(e(2) / total))
    smoothed = 0.9 * -log(e(2) / total) + 0.1 * -sum(log(e(s) / total) for s in (1, 0, 2)) / 3
    assert class_loss(logits, labels, label_smoothing=0.1).item() == pytest.approx(smoothed)
    assert class_loss(logits, torch.tensor([-1, -1])).item() == 0


def test_tags_by_hand():
    logits = torch.tensor([[1.0, -2.0], [9.0, 9.0]])
    tags = torch.tensor([[True, False], [False, False]])  # the second item was never labelled
    assert tags_loss(logits, tags).item() == pytest.approx(-(log_sigmoid(1) + log_sigmoid(2)) / 2)
    smoothed = 0.95 * log_sigmoid(1) + 0.05 * log_sigmoid(-1) + 0.95 * log_sigmoid(2) + 0.05 * log_sigmoid(-2)
    assert tags_loss(logits, tags, label_smoothing=0.1).item() == pytest.approx(-smoothed / 2)
    assert tags_loss(logits, torch.zeros(2, 2, dtype=torch.bool)).item() == 0

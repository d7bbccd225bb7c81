"""Losses of phase two against values written as arithmetic."""

import math

import pytest
import torch

from lora_rec.train.losses import in_batch_softmax_loss
from lora_rec.train.objectives.labels import class_loss, interest_logits, interest_loss, tags_loss
from lora_rec.train.objectives.ranking import bpr_loss, drawn_softmax_loss, listwise_loss

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
    found = in_batch_softmax_loss(
        USERS,
        ITEMS,
        log_popularity=torch.zeros(3),
        known_mask=torch.tensor([[True, False, False]]),
        label_smoothing=0.2,
        **PAIR,
    )
    total = log(e(2) + e(0) + e(-2))
    assert found.item() == pytest.approx(0.8 * (total - 2) + 0.2 * (total - (0 - 2) / 2))
    everything = in_batch_softmax_loss(
        USERS,
        ITEMS,
        log_popularity=torch.zeros(3),
        known_mask=torch.tensor([[True, True, True]]),
        label_smoothing=0.2,
        **PAIR,
    )
    assert everything.item() == pytest.approx(0)


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

import math

import pytest
import torch

from lora_rec.train.losses import (
    alignment_loss,
    catalogue_softmax_loss,
    in_batch_softmax_loss,
    propensity_weights,
    sampled_softmax_loss,
)

USERS = torch.tensor([[1.0, 0.0]])
ITEMS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def loss(**changes):
    arguments = {
        "positive_users": torch.tensor([0]),
        "positive_items": torch.tensor([0]),
        "log_popularity": torch.zeros(3),
        "known_mask": torch.tensor([[True, False, False]]),
        "temperature": 0.5,
    }
    return in_batch_softmax_loss(USERS, ITEMS, **(arguments | changes)).item()


def test_softmax_by_hand():
    e = math.exp
    assert loss() == pytest.approx(-math.log(e(2) / (e(2) + e(0) + e(-2))))


def test_known_items_are_no_negatives():
    mask = torch.tensor([[True, False, True]])
    assert loss(known_mask=mask) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + math.exp(0))))


def test_popularity_is_subtracted_from_the_logit():
    e = math.exp
    popularity = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    expected = (e(2) / 0.5) / (e(2) / 0.5 + e(0) / 0.25 + e(-2) / 0.25)
    assert loss(log_popularity=popularity) == pytest.approx(-math.log(expected))
    assert loss(log_popularity=popularity, popularity_correction=0.0) == pytest.approx(loss())


def test_a_wrong_shape_or_temperature_is_refused():
    with pytest.raises(ValueError, match="do not fit 1 users and 3 items"):
        loss(log_popularity=torch.zeros(2))
    with pytest.raises(ValueError, match="temperature: 0 is not positive"):
        loss(temperature=0)


def test_alignment_by_hand():
    assert alignment_loss(ITEMS, ITEMS[[0, 0, 0]]).item() == pytest.approx((0 + 1 + 2) / 3)


def softmax_case():
    generator = torch.Generator().manual_seed(0)
    shapes = (300, 4), (30, 4), (30,)  # more positions than one block has
    users, items, bias = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
    return users, items, bias, torch.randint(0, 30, (300,), generator=generator)


def test_catalogue_softmax_is_cross_entropy_with_its_gradients():
    *inputs, targets = softmax_case()
    users, items, bias = inputs
    weights = torch.linspace(0.5, 2, 30)
    expected = torch.nn.functional.cross_entropy(users @ items.T + bias, targets, reduction="none")
    expected = (weights[targets] * expected).mean()
    loss = catalogue_softmax_loss(users, items, bias, targets, item_weights=weights)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * expected, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_sampled_softmax_agrees_with_the_full_one_on_average():
    *inputs, targets = softmax_case()
    users, items, bias = inputs
    weights = torch.linspace(0.5, 2, 30)
    full = torch.autograd.grad(
        catalogue_softmax_loss(users, items, bias, targets, item_weights=weights), inputs
    )
    generator = torch.Generator().manual_seed(1)
    chances = torch.linspace(1, 3, 30) / 60
    n_draws = 200
    total = [torch.zeros_like(tensor) for tensor in inputs]
    for _ in range(n_draws):
        sampled = torch.multinomial(chances, 300, replacement=True, generator=generator)
        loss = sampled_softmax_loss(
            users,
            items,
            bias,
            targets,
            item_weights=weights,
            sampled=sampled,
            log_probabilities=chances.log(),
        )
        for part, gradient in zip(total, torch.autograd.grad(loss, inputs), strict=True):
            part += gradient / n_draws
    for ours, theirs in zip(total, full, strict=True):
        # Left are noise and the logarithm's bias, both of order 1 / 300.
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_propensity_weights_go_from_each_interaction_to_each_item():
    counts = torch.tensor([8, 2, 0, 2])
    assert propensity_weights(counts, power=0).tolist() == [1, 1, 1, 1]
    assert (counts * propensity_weights(counts, power=1)).tolist() == [4, 4, 0, 4]
    halfway = propensity_weights(counts, power=0.5)
    torch.testing.assert_close((counts * halfway).sum(), torch.tensor(12.0))
    assert halfway[1] == 2 * halfway[0]

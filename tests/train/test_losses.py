import pytest
import torch

from lora_rec.train.losses import (
    alignment_loss,
    catalogue_softmax_loss,
    propensity_weights,
    sampled_softmax_loss,
)

ITEMS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


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

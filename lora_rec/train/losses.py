"""Losses on embeddings: tensors in, a number out."""

from __future__ import annotations

import math

import torch

CATALOGUE_ROWS = 128  # positions in a block


def smooth_softmax(
    losses: torch.Tensor,
    total: torch.Tensor,
    logits: torch.Tensor,
    weights: torch.Tensor,
    users: torch.Tensor,
    *,
    label_smoothing: float,
) -> torch.Tensor:
    """Spreads a share of each positive's label over the negatives of its user.

    Args:
        losses: (P,), -log softmax at the positives.
        total: (P,), log of what the softmax divides by.
        logits: (U, M).
        weights: (U, M), how much of the share a negative gets; a user without any keeps the whole label.
        users: (P,), row of each positive's user.
        label_smoothing: the share.
    """
    kept = weights.to(logits.dtype)
    sums = kept.sum(dim=1)
    means = (logits * kept).sum(dim=1) / sums.clamp(min=1e-30)
    others = torch.where(sums[users] > 0, total - means[users], losses)
    return (1 - label_smoothing) * losses + label_smoothing * others


def alignment_loss(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half the mean squared distance of unit vectors to a teacher's, 1 - cos.

    Args:
        embeddings: (n, D), unit length.
        targets: (n, D), unit length.

    Raises:
        ValueError: shapes differ.
    """
    if embeddings.shape != targets.shape:
        raise ValueError(
            f"embeddings {tuple(embeddings.shape)} and targets {tuple(targets.shape)} differ in shape"
        )
    return (1 - (embeddings * targets).sum(dim=1)).mean()


class _CatalogueLoss(torch.autograd.Function):
    """The weighted sum of -log softmax at the targets; gradients are taken along the way, block by block.

    The logits of a block are in the processor's cache while they are used, and never all in memory: on a CPU
    this takes half the time of `cross_entropy`.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        users: torch.Tensor,
        items: torch.Tensor,
        bias: torch.Tensor,
        targets: torch.Tensor,
        target_weights: torch.Tensor,
    ) -> torch.Tensor:
        user_gradient, item_gradient = torch.empty_like(users), torch.zeros_like(items)
        bias_gradient = torch.zeros_like(bias)
        loss = users.new_zeros(())
        for begin in range(0, len(users), CATALOGUE_ROWS):
            rows = slice(begin, begin + CATALOGUE_ROWS)
            logits = torch.addmm(bias, users[rows], items.T)
            logits -= logits.amax(dim=1, keepdim=True)
            shifted = logits.gather(1, targets[rows, None])
            weights = logits.exp_()
            total = weights.sum(dim=1, keepdim=True)
            weight = target_weights[rows, None]
            loss += (weight * (total.log() - shifted)).sum()
            weights *= weight / total
            weights.scatter_add_(1, targets[rows, None], -weight)
            torch.mm(weights, items, out=user_gradient[rows])
            item_gradient.addmm_(weights.T, users[rows])
            bias_gradient += weights.sum(dim=0)
        ctx.save_for_backward(user_gradient, item_gradient, bias_gradient)
        return loss

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        users, items, bias = ctx.saved_tensors  # type: ignore[attr-defined]
        return users * gradient, items * gradient, bias * gradient, None, None


def catalogue_softmax_loss(
    users: torch.Tensor,
    items: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    *,
    item_weights: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of each target against the whole catalogue.

    Args:
        users: (P, W), one per position.
        items: (N, W); the logits are users @ items.T + bias.
        bias: (N,)
        targets: (P,), the item that comes next.
        item_weights: (N,), how much a target counts; see `propensity_weights`.

    Source: Klenitskiy and Vasilev 2023, "Turning dross into gold loss: is BERT4Rec really better than
    SASRec?", arXiv 2309.07602: with this loss SASRec is the better of the two.
    """
    loss: torch.Tensor = _CatalogueLoss.apply(  # type: ignore[no-untyped-call]
        users, items, bias, targets, item_weights[targets]
    )
    return loss / len(users)


def sampled_softmax_loss(
    users: torch.Tensor,
    items: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    *,
    item_weights: torch.Tensor,
    sampled: torch.Tensor,
    log_probabilities: torch.Tensor,
) -> torch.Tensor:
    """`catalogue_softmax_loss` estimated from sampled negatives.

    A drawn item stands for 1 / (M q) items: log(M q) is subtracted from its logit, and one that is the target
    itself is left out. So the sum that the softmax divides by is right on average.

    Args:
        users: (P, W)
        items: (N, W)
        bias: (N,)
        targets: (P,)
        item_weights: (N,)
        sampled: (M,), negatives drawn with replacement, for all positions alike.
        log_probabilities: (N,), log of each item's chance q in one draw.

    Source: Bengio and Senecal 2008, "Adaptive importance sampling to accelerate training of a neural
    probabilistic language model".
    """
    correction = log_probabilities[sampled] + math.log(len(sampled))
    logits = users @ items[sampled].T + (bias[sampled] - correction)
    logits = logits.masked_fill(sampled[None, :] == targets[:, None], -torch.inf)
    positives = (users * items[targets]).sum(dim=1) + bias[targets]
    losses = torch.logaddexp(positives, torch.logsumexp(logits, dim=1)) - positives
    return (item_weights[targets] * losses).mean()


def propensity_weights(item_counts: torch.Tensor, *, power: float) -> torch.Tensor:
    """Gives how much each item counts as a target, (N,): its count to the power of -`power`.

    Popular items were seen by more people, so that more took them; with 1 each item counts as much as any
    other, with 0 each interaction. The mean over the interactions is 1, so a learning rate stays right.

    Args:
        item_counts: (N,), training interactions.
        power: 0 to 1.

    Source: Schnabel et al. 2016, "Recommendations as treatments", arXiv 1602.05352, with popularity for the
    propensity, as in Yang et al. 2018, "Unbiased offline recommender evaluation for missing-not-at-random
    implicit feedback".
    """
    counts = item_counts.double().clamp(min=1)
    weights = counts**-power
    return (weights * (item_counts.sum() / (weights * item_counts).sum().clamp(min=1e-12))).float()

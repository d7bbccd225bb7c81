"""The projections in closed form: what a linear map can do is solved, not learned step by step.

The frozen towers speak different languages: an encoder's states of a history and a decoder's states of an
item have no common axes. A linear item-item model (the teacher) gives both sides vectors in one space;
regressing the states onto these gives the best linear map. With the frozen states that is what the trained
adapters are compared with; while the adapters are trained by gradient, the maps are solved again after each
epoch (variable projection, Golub and Pereyra 1973).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.errors import TrainingError
from lora_rec.towers.two_tower import Projection

_NOTHING = 1e-6
"""Of the longest vector's length: what rounding leaves of zeros."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """Unit vectors that the towers are taught: their dot products order items as the linear model does."""

    items: NDArray[np.float32]
    """(N, D)"""
    users: NDArray[np.float32]
    """(M, D), one per training example."""
    knows: NDArray[np.bool_]
    """(N,), items that anybody took. A linear model gives the others a vector of zeros, as if nobody ever
    would take them, and no text is to be taught that."""


def build_teacher(
    item_vectors: NDArray[np.float32], user_vectors: NDArray[np.float32], *, width: int
) -> Teacher:
    """Brings a model whose scores are dot products to unit vectors of a given width.

    The scores' leading axes are kept. Items get one more axis that lifts each to the length of the longest,
    and users have zero there, so the order of the items stays what it was although every vector has unit
    length.

    Args:
        item_vectors: (N, R).
        user_vectors: (M, R), of the training examples' histories.
        width: D; one axis is the lift.

    Source: Bachrach et al. 2014, "Speeding up the Xbox recommender system using a Euclidean transformation
    for inner-product spaces", section 3.
    """
    values, axes = np.linalg.eigh((item_vectors.T @ item_vectors).astype(np.float64))
    leading = axes[:, np.argsort(values)[::-1][: width - 1]].astype(np.float32)
    items, users = item_vectors @ leading, user_vectors @ leading
    # Balance the axes: both sides carry the square root of an axis's strength.
    strength = np.maximum(np.linalg.norm(items, axis=0), 1e-12) ** 0.5
    items, users = items / strength, users * strength
    lengths = np.linalg.norm(items, axis=1)
    longest = max(float(lengths.max(initial=0)), 1e-12)
    lifted = np.zeros((len(items), width), dtype=np.float32)
    lifted[:, : items.shape[1]] = items / longest
    lifted[:, -1] = np.sqrt(np.maximum(0, 1 - (lengths / longest) ** 2))
    flat = np.zeros((len(users), width), dtype=np.float32)
    flat[:, : users.shape[1]] = users / np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-12)
    return Teacher(lifted, flat, lengths > _NOTHING * longest)


def ridge(
    states: NDArray[np.float32], targets: NDArray[np.float32], *, shrinkage: float = 1e-2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gives the linear map from states to targets with the least squared error and a penalty on its size.

    Args:
        states: (M, H).
        targets: (M, D).
        shrinkage: penalty, as a share of the mean variance of the states.

    Returns:
        Weight (D, H) and bias (D,).
    """
    x_mean, y_mean = states.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    x, y = states - x_mean, targets - y_mean
    covariance = x.T @ x
    penalty = shrinkage * np.trace(covariance) / len(covariance)
    weight = np.linalg.solve(covariance + penalty * np.eye(len(covariance)), x.T @ y).T
    return weight.astype(np.float32), (y_mean - weight @ x_mean).astype(np.float32)


def solve_projection(
    projection: Projection, states: NDArray[np.float32], targets: NDArray[np.float32], *, where: str
) -> None:
    """Sets the standardisation from states (M, H) and the map to their regression onto targets (M, D).

    Raises:
        TrainingError: all states are the same; `where` says whose.
    """
    if (states == states[0]).all():
        raise TrainingError(
            f"{where}: all {len(states):,} texts have the same vector, so they tell nothing apart;"
            " look at the template and at what `lora-rec check` says of the texts"
        )
    mean, deviation = states.mean(axis=0), states.std(axis=0)
    scale = 1 / np.maximum(deviation, 1e-6 * max(float(deviation.max()), 1e-12))
    weight, bias = ridge((states - mean) * scale, targets)
    values = {"mean": mean, "scale": scale, "weight": weight, "bias": bias}
    projection.load_state_dict(
        {k: torch.from_numpy(np.asarray(v, dtype=np.float32)) for k, v in values.items()}
    )

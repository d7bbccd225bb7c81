"""Closed-form starts of the projections, so that training begins where linear algebra ends.

The frozen towers speak different languages: an encoder's states of a history and a decoder's states of an item have
no common axes. Whitening the item states and regressing onto them gives the best that a linear map alone can do;
that is what the trained adapters are compared with.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def whitening(states: NDArray[np.float32], *, width: int, shrinkage: float = 1e-3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gives the PCA whitening of vectors onto their first principal axes.

    Args:
        states: (N, H).
        width: D, number of axes; those beyond the rank of the data stay zero.
        shrinkage: share of the largest variance that is added to each.

    Returns:
        Weight (D, H) and bias (D,) with `states @ weight.T + bias` of mean 0 and variance at most 1 per axis.
    """
    mean = states.mean(axis=0, dtype=np.float64)
    centred = states.astype(np.float64) - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / max(1, len(states)))
    order = np.argsort(variances)[::-1][:width]
    scales = 1 / np.sqrt(np.maximum(variances[order], 0) + shrinkage * max(variances[order[0]], 1e-12))
    weight = np.zeros((width, states.shape[1]))
    weight[: len(order)] = (axes[:, order] * scales).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def ridge(states: NDArray[np.float32], targets: NDArray[np.float32], *, shrinkage: float = 1e-2) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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


def set_projection(projection: nn.Linear, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Writes a closed-form start into a projection."""
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(weight))
        projection.bias.copy_(torch.from_numpy(bias))

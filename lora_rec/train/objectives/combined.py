"""One or several objectives on the embeddings of a step, weighed and added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.train.losses import alignment_loss
from lora_rec.train.objectives.batch import Batch, Material, draw_batch
from lora_rec.train.objectives.labels import class_loss, interest_logits, interest_loss, tags_loss
from lora_rec.train.objectives.ranking import bpr_loss, drawn_softmax_loss, listwise_loss

Numbers = Mapping[str, torch.Tensor]
"""What objectives learn of their own; see `Objectives.first_numbers`."""


class _Vectors(NamedTuple):
    """Embeddings of a step."""

    users: torch.Tensor
    """(T, D), one per distinct text."""
    rows: torch.Tensor
    """(B, D), one per example."""
    items: torch.Tensor
    """(M, D)"""


@dataclass(frozen=True, eq=False)
class Objectives:
    """What the towers are trained on."""

    material: Material
    weights: Mapping[str, float]
    """Above 0, by the names of `objectives_section.OBJECTIVES`."""
    learns_weights: bool
    """By uncertainty, see `combine`."""
    temperature: float
    popularity_correction: float
    """Of `softmax`: 1 counts each negative as the items that it stands for, 0 as one."""
    label_smoothing: float
    extra_items: int
    """Random items in each step, of those that anybody took, so that rare ones keep their scale."""
    mined_negatives: int
    """For each example; 0 mines none."""
    lists_per_step: int
    list_length: int
    seed: int

    def first_numbers(self, width: int) -> dict[str, torch.Tensor]:
        """Gives the numbers that are learned beside the adapters, as they start.

        Args:
            width: D, of the embeddings.
        """
        numbers: dict[str, torch.Tensor] = {}
        if "interest" in self.weights:
            # The towers' own match, until something else is learned.
            weights = torch.stack([torch.ones(width), torch.zeros(width), torch.zeros(width)])
            numbers |= {"interest_weights": weights, "interest_bias": torch.zeros(1)}
        if "item_features" in self.weights:
            for place, field in enumerate(self.material.item_labels):
                numbers[f"feature{place}_weights"] = torch.zeros(len(field.labels), width)
                numbers[f"feature{place}_bias"] = torch.zeros(len(field.labels))
        if self.learns_weights:
            numbers |= {f"log_variance_{n}": torch.tensor(-math.log(w)) for n, w in self.weights.items()}
        return numbers

    def draw(self, rows: NDArray[np.int64], step: int, mined: NDArray[np.int32] | None) -> Batch:
        """Gathers what a step sees; see `draw_batch`."""
        return draw_batch(
            self.material,
            rows,
            step,
            extra_items=self.extra_items,
            mined=mined,
            mined_negatives=self.mined_negatives,
            lists_per_step=self.lists_per_step if "listwise" in self.weights else 0,
            list_length=self.list_length,
            seed=self.seed,
        )

    def losses(
        self, batch: Batch, users: torch.Tensor, items: torch.Tensor, numbers: Numbers
    ) -> dict[str, torch.Tensor]:
        """Gives the loss of each objective, not weighed.

        Args:
            batch: on the embeddings' device.
            users: (T, D), of the batch's distinct texts.
            items: (M, D), of its distinct items.
            numbers: what the objectives learn of their own.
        """
        vectors = _Vectors(users, users[batch.text_of_row], items)
        return {name: _LOSSES[name](self, batch, vectors, numbers) for name in self.weights}

    def combine(self, losses: Mapping[str, torch.Tensor], numbers: Numbers) -> torch.Tensor:
        """Gives the sum of weight times loss, or exp(-v) loss + v / 2 with learned log variances v.

        The loss of an objective that cannot be met grows its variance, so it counts less; v / 2 keeps the
        variances from growing for nothing. They start where the weights are as given.

        Source: Kendall et al. 2018, "Multi-task learning using uncertainty to weigh losses for scene geometry
        and semantics", arXiv 1705.07115, eq. 10.
        """
        if not self.learns_weights:
            parts = [self.weights[name] * loss for name, loss in losses.items()]
        else:
            parts = []
            for name, loss in losses.items():
                variance = numbers[f"log_variance_{name}"]
                parts.append(torch.exp(-variance) * loss + variance / 2)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _softmax(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        """The batch's other targets and the drawn items stand for all that anybody took.

        An item is among them with chance 1 - (1 - q)^P (1 - e): each of P targets is that item with chance q,
        and a share e of the items is drawn. It counts as the inverse.

        Source: Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item
        recommendations", with the chance to be in the batch, as in Horvitz and Thompson 1952.
        """
        shares = torch.from_numpy(self.material.target_shares[batch.items])
        chances = 1 - (1 - shares) ** len(batch.positive_items) * (1 - self._drawn_share())
        log_counts = -self.popularity_correction * chances.clamp(min=1e-12).log().float()
        is_target = torch.zeros(len(batch.items), dtype=torch.bool)
        is_target[batch.positive_items.cpu()] = True
        log_counts = log_counts.masked_fill(~(is_target | batch.drawn.cpu()), -torch.inf)
        return self._against(batch, vectors, log_counts.to(vectors.items.device))

    def _alignment(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        teacher = self.material.teacher
        of_rows = torch.from_numpy(teacher.users[batch.rows]).to(vectors.items.device)
        knows = teacher.knows[batch.items]
        of_items = torch.from_numpy(teacher.items[batch.items[knows]]).to(vectors.items.device)
        items = vectors.items[torch.from_numpy(knows).to(vectors.items.device)]
        return alignment_loss(vectors.rows, of_rows) + alignment_loss(items, of_items)

    def _sampled_softmax(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        log_counts = torch.where(batch.drawn, -math.log(self._drawn_share()), -torch.inf)
        return self._against(batch, vectors, log_counts)

    def _drawn_share(self) -> float:
        n_taken = len(self.material.taken_items)
        return min(self.extra_items, n_taken) / n_taken

    def _against(self, batch: Batch, vectors: _Vectors, log_counts: torch.Tensor) -> torch.Tensor:
        """Gives the softmax of each target against items that stand for others; those are (M,) log counts."""
        # A mined item stands for itself alone: it is there for certain.
        of_rows = log_counts.expand(batch.known_mask.shape).masked_fill(batch.mined, 0.0)
        return drawn_softmax_loss(
            vectors.rows,
            vectors.items,
            positive_users=batch.positive_users,
            positive_items=batch.positive_items,
            log_counts=of_rows.masked_fill(batch.known_mask, -torch.inf),
            temperature=self.temperature,
            label_smoothing=self.label_smoothing,
        )

    def _bpr(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        return bpr_loss(
            vectors.rows,
            vectors.items,
            positive_users=batch.positive_users,
            positive_items=batch.positive_items,
            negative_mask=(batch.drawn | batch.mined) & ~batch.known_mask,
            temperature=self.temperature,
            label_smoothing=self.label_smoothing,
        )

    def _listwise(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        lists = batch.lists
        assert lists is not None  # they are drawn where the objective has a weight
        scores = torch.einsum("ld,lkd->lk", vectors.users[lists.users], vectors.items[lists.items])
        scores = scores / self.temperature
        return listwise_loss(scores, lists.clicks, lists.present, label_smoothing=self.label_smoothing)

    def _interest(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        rows, columns = batch.positive_users, batch.positive_items
        weights = numbers["interest_weights"]
        if self.material.liked is not None:
            labels = torch.from_numpy(self.material.liked[batch.positive_places]).to(vectors.items.device)
        else:
            # Each pair meets one of the drawn items, in turn: as many items not taken as taken.
            drawn = torch.nonzero(batch.drawn)[:, 0]
            against = drawn[torch.arange(len(rows), device=drawn.device) * len(drawn) // len(rows)]
            unknown = ~batch.known_mask[rows, against]
            labels = torch.cat([torch.ones_like(unknown), torch.zeros_like(unknown[unknown])])
            rows, columns = torch.cat([rows, rows[unknown]]), torch.cat([columns, against[unknown]])
            # So nothing of the user alone tells them apart: its weights stay 0, or they would learn noise.
            weights = weights * weights.new_tensor([[1.0], [0.0], [1.0]])
        logits = interest_logits(
            vectors.rows[rows],
            vectors.items[columns],
            weights=weights,
            bias=numbers["interest_bias"],
            temperature=self.temperature,
        )
        return interest_loss(logits, labels, label_smoothing=self.label_smoothing)

    def _item_features(self, batch: Batch, vectors: _Vectors, numbers: Numbers) -> torch.Tensor:
        total = vectors.items.new_zeros(())
        for place, field in enumerate(self.material.item_labels):
            weights, bias = numbers[f"feature{place}_weights"], numbers[f"feature{place}_bias"]
            logits = vectors.items @ weights.T / self.temperature + bias
            if field.classes is not None:
                labels = torch.from_numpy(field.classes[batch.items]).to(vectors.items.device)
                total = total + class_loss(logits, labels, label_smoothing=self.label_smoothing)
            else:
                assert field.tags is not None  # a field has one of the two
                tags = torch.from_numpy(field.tags[batch.items]).to(vectors.items.device)
                total = total + tags_loss(logits, tags, label_smoothing=self.label_smoothing)
        return total / len(self.material.item_labels)


_LOSSES = {
    "softmax": Objectives._softmax,
    "alignment": Objectives._alignment,
    "sampled_softmax": Objectives._sampled_softmax,
    "bpr": Objectives._bpr,
    "listwise": Objectives._listwise,
    "interest": Objectives._interest,
    "item_features": Objectives._item_features,
}

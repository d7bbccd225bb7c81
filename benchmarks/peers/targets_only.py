"""The training step of rectools' transformers, without the scores of places where nothing is to be told."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayer
from rectools.models.rank import Distance
from torch import Tensor

ROWS_AT_ONCE = 128  # their scores of ten thousand items stay in a processor's cache
WIDTHS = 4  # groups of a batch's sessions by length


class TargetsOnly(TransformerLightningModule):
    """Scores the catalogue at the places that have a target alone, which leaves the loss as it is.

    rectools scores it at padding as well, and for BERT4Rec at each place that is not masked, and then leaves
    those out of the loss. Without them an epoch of SASRec on Online Retail takes half as long; on one thread
    the `ndcg@10` of its lists was the same in all digits. The loss and its gradient are then made together, a
    few rows at a time, which halves what is left. Where a model does not look at padding (BERT4Rec), sessions
    are read in groups of about their length: positions count from the end, so what is read is the same, and
    of the twenty places of a session on Amazon Beauty thirteen are padding. Its last block then goes on with
    the places that are told alone.
    """

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Gives the mean weighted cross-entropy of a batch's targets."""
        items = self.torch_model.item_model.get_all_embeddings()
        # The gradient of all items is made once, not in each group.
        padded = torch.nn.functional.pad(batch["x"], (1, 0))  # so that 0 stays 0
        known, places = torch.unique(padded, return_inverse=True)
        read, batch = items[known], batch | {"x": places[:, 1:]}
        parts = _by_length(batch) if self.torch_model.use_key_padding_mask else [batch]
        told = [part["y"] != 0 for part in parts]
        sessions = torch.cat([self._encode(part, read, at) for part, at in zip(parts, told, strict=True)])
        targets, weights = (
            torch.cat([part[name][at] for part, at in zip(parts, told, strict=True)]) for name in ("y", "yw")
        )
        similarity = self.torch_model.similarity_module
        if similarity.distance == Distance.COSINE:
            sessions, items = map(similarity._get_embeddings_norm, (sessions, items))
        loss: Tensor = _Softmax.apply(sessions, items, targets, weights, self.logits_t)
        return loss

    def configure_optimizers(self) -> torch.optim.Adam:
        """Gives rectools' optimizer, one pass over each tensor instead of ten."""
        if self.optimizer is None:
            parameters = self.torch_model.parameters()
            self.optimizer = torch.optim.Adam(parameters, lr=self.lr, betas=self.adam_betas, fused=True)
        return self.optimizer

    def _encode(self, batch: dict[str, Tensor], items: Tensor, told: Tensor) -> Tensor:
        """Gives the states (T, D) of the places that are told, a mask (B, L)."""
        last: Any = getattr(self.torch_model.transformer_layers, "transformer_blocks", [None])[-1]
        if not isinstance(last, PreLNTransformerLayer):
            return self.torch_model.encode_sessions(batch, items)[told]
        last.forward = partial(_told_by_last_block, last, told)
        try:
            return self.torch_model.encode_sessions(batch, items)
        finally:
            del last.forward


def _told_by_last_block(
    block: PreLNTransformerLayer, told: Tensor, states: Tensor, attn_mask: Tensor, key_padding_mask: Tensor
) -> Tensor:
    """Does what the block does, its feed-forward part at some places."""
    normed = block.layer_norm_1(states)
    seen, _ = block.multi_head_attn(
        normed, normed, normed, attn_mask=attn_mask, key_padding_mask=key_padding_mask, need_weights=False
    )
    states = (states + block.dropout_1(seen))[told]
    return block.dropout_3(states + block.dropout_2(block.feed_forward(block.layer_norm_2(states))))


def _by_length(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Splits sessions that are padded from the left, (B, L), into groups as wide as their longest."""
    lengths = (batch["x"] != 0).sum(1)
    groups = []
    for rows in lengths.argsort().chunk(WIDTHS):
        width = int(lengths[rows].max())
        groups.append({name: values[rows, -width:] for name, values in batch.items()})
    return groups


class _Softmax(torch.autograd.Function):
    """Mean weighted cross-entropy of dot products, with the products in bfloat16 as under autocast.

    The gradient of some rows is made while their scores are at hand, as Liger Kernel does (Hsu et al. 2024,
    arXiv:2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, sessions: Tensor, items: Tensor, targets: Tensor, weights: Tensor, temperature: float
    ) -> Tensor:
        """Takes (T, D), (N, D), (T,), (T,); gives a scalar."""
        left, right = sessions.to(torch.bfloat16), items.to(torch.bfloat16)
        for_left, for_right = torch.empty_like(left), torch.zeros(items.shape)
        loss = torch.zeros(())
        for start in range(0, len(targets), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            target, weight = targets[rows, None], weights[rows, None].float() / len(targets)
            scores = (left[rows] @ right.T).float().div_(temperature)
            hit, top = scores.gather(1, target), scores.amax(1, keepdim=True)
            chances = scores.sub_(top).exp_()
            total = chances.sum(1, keepdim=True)
            loss += ((total.log() + top - hit) * weight).sum()
            gradient = chances.mul_(weight / total).scatter_add_(1, target, -weight).div_(temperature)
            half = gradient.to(torch.bfloat16)
            for_left[rows] = half @ right
            for_right += half.T @ left[rows]
        ctx.save_for_backward(for_left.to(sessions.dtype), for_right.to(items.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        """Gives the gradients that `forward` made."""
        for_left, for_right = ctx.saved_tensors
        return for_left * gradient, for_right * gradient, None, None, None

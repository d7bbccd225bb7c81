"""Token batches: sorted by length, cut by a token budget, never padded to a fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.errors import DataError

_BATCH_COST = 1 / 64
"""Of the token budget: what a micro-batch costs beside its tokens."""


@dataclass(frozen=True)
class TokenBatch:
    """Padded on the right; either token ids or the hidden states that the frozen layers gave for them."""

    attention_mask: torch.Tensor
    """(B, L) int64, 1 for a real token."""
    input_ids: torch.Tensor | None = None
    """(B, L) int64."""
    hidden_states: torch.Tensor | None = None
    """(B, L, H)."""
    shift: torch.Tensor | None = None
    """(B, L, H), how far to move the states that enter the trained layers, in units of their length."""

    def to(self, device: torch.device) -> TokenBatch:
        """Gives the batch on a device."""
        move = lambda t: None if t is None else t.to(device)  # noqa: E731
        return TokenBatch(
            self.attention_mask.to(device), move(self.input_ids), move(self.hidden_states), move(self.shift)
        )


class BatchSource(Protocol):
    """Texts that can be asked for as batches: as token ids, or read from the prefix cache."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,), tokens of each text."""
        ...

    def batch(self, indices: NDArray[np.int64]) -> TokenBatch:
        """Gives the chosen texts as one padded batch."""
        ...


@dataclass(frozen=True, eq=False)
class TokenizedTexts:
    """Token ids of many texts, one after the other."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(n,), tokens of each text."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: NDArray[np.int64]) -> TokenizedTexts:
        """Gives the chosen texts in the order asked for."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths[indices])])
        ids = [self[int(i)] for i in indices]
        return TokenizedTexts(np.concatenate([np.empty(0, np.int32), *ids]), offsets)

    @property
    def owners(self) -> NDArray[np.int64]:
        """(tokens), the number of each token's text."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def batch(self, indices: NDArray[np.int64]) -> TokenBatch:
        """Gives the chosen texts as one batch, padded to its longest."""
        mask = padding_mask(self.lengths[indices])
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = np.concatenate([self[i] for i in indices])
        return TokenBatch(torch.from_numpy(mask.astype(np.int64)), input_ids=torch.from_numpy(ids))


def padding_mask(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks the real tokens of a batch padded on the right.

    >>> padding_mask(np.array([1, 3])).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return np.arange(lengths.max())[None, :] < lengths[:, None]


def tokenize(
    tokenizer: Any, texts: Sequence[str], *, max_tokens: int, keep_end: bool = False
) -> TokenizedTexts:
    """Tokenises texts without padding.

    A text that gives no token becomes the tokenizer's end, separator or unknown token, because a row without
    a real token has no vector.

    Args:
        tokenizer: of transformers; special tokens are added as it does by itself.
        texts: any strings.
        max_tokens: a longer text is cut at its end.
        keep_end: cut at its start instead; for prompts, whose question stands at the end.

    Raises:
        DataError: a string instead of a list of them.
    """
    if isinstance(texts, str):
        raise DataError(f"texts: {texts[:20]!r} is one string, which would be read by letters; give a list")
    given, options = list(texts), {"truncation": True, "max_length": max_tokens, "padding": False}
    usual = tokenizer.truncation_side
    tokenizer.truncation_side = "left" if keep_end else usual
    try:
        encoded = tokenizer(given, **options)["input_ids"] if given else []
    finally:
        tokenizer.truncation_side = usual
    sentinels = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id, 0)
    sentinel = next(t for t in sentinels if t is not None)
    return _join([row if len(row) else [sentinel] for row in encoded])


def tokenize_pairs(
    tokenizer: Any, firsts: Sequence[str], seconds: Sequence[str], *, max_tokens: int
) -> TokenizedTexts:
    """Tokenises pairs of texts: `[CLS] first [SEP] second [SEP]`, or without such tokens `first; second`.

    The first text is cut at half of the tokens, the second at what is left.
    """
    one = tokenize(tokenizer, firsts, max_tokens=max_tokens // 2)
    sep = tokenizer.sep_token_id
    between = tokenizer(";", add_special_tokens=False)["input_ids"] if sep is None else []
    end = [] if sep is None else [sep]
    other = tokenizer(list(seconds), add_special_tokens=False)["input_ids"] if seconds else []
    rows = []
    for first, second in zip((one[i].tolist() for i in range(len(one))), other, strict=True):
        left = max_tokens - len(first) - len(between) - len(end)
        rows.append([*first, *between, *second[:left], *end])
    return _join(rows)


def _join(rows: Sequence[Sequence[int]]) -> TokenizedTexts:
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    flat = np.fromiter((t for row in rows for t in row), dtype=np.int32, count=int(offsets[-1]))
    return TokenizedTexts(flat, offsets)


def plan_micro_batches(lengths: NDArray[np.int64], *, token_budget: int) -> list[NDArray[np.int64]]:
    """Cuts texts into micro-batches of like length.

    Each is as large as the budget allows, and cut again where that saves more padding than a micro-batch
    costs by itself.

    Args:
        lengths: (n,), tokens of each text.
        token_budget: rows times the longest row of one micro-batch; a longer text goes alone.

    Returns:
        Positions into `lengths`; each stands in exactly one micro-batch.

    >>> [b.tolist() for b in plan_micro_batches(np.array([5, 2, 9, 2]), token_budget=10)]
    [[1, 3], [0], [2]]
    """
    batches: list[NDArray[np.int64]] = []
    order = np.argsort(lengths, kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        # The order rises, so the next text is the longest of the batch that would hold it.
        if stop == len(order) or (stop + 1 - start) * lengths[order[stop]] > token_budget:
            batches += _cut(order[start:stop], lengths, cost=token_budget * _BATCH_COST)
            start = stop
    return batches


def _cut(rows: NDArray[np.int64], lengths: NDArray[np.int64], *, cost: float) -> list[NDArray[np.int64]]:
    """Cuts a sorted micro-batch in two where that saves most, and its parts again."""
    own = lengths[rows]
    saved = np.arange(1, len(rows)) * (own[-1] - own[:-1])
    if not len(saved) or saved.max() <= cost:
        return [rows]
    place = int(saved.argmax()) + 1
    return _cut(rows[:place], lengths, cost=cost) + _cut(rows[place:], lengths, cost=cost)

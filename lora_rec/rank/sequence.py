"""The sequence part of the ranking head in numpy: a small causal transformer over the history's items.

It is of the SASRec kind (Kang and McAuley 2018, arXiv 1808.09781), with pre-norm blocks. An item comes in as
the vector that it is scored by; a learned start vector stands before the oldest item seen, so that an empty
history has a state too. Attention knows how many places back an item is, by a learned bias, and nothing else
of places: so every state is computed alike, wherever its history was cut. The user's text vector, where there
is one, joins the newest input. `train.head` trains it in torch; this is the same arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists

_Array = NDArray[np.float32]
NORM_EPSILON = 1e-5
USERS_AT_ONCE = 128  # bounds the memory of their attention


@dataclass(frozen=True, eq=False)
class SequencePart:
    """Weights; W is the width, B the blocks, Q the heads, L the history length, D the text width."""

    items: _Array
    """(N, W), input of each item, also what it is scored by; unit length, but for a mean of
    neighbours (`pipeline.new_items.place_by_neighbours`)."""
    item_bias: _Array
    """(N,), relevance of an item to everybody."""
    input_scale: _Array
    """(1,), factor of an item as input."""
    start: _Array
    """(W,), input before the oldest item."""
    text_weight: _Array
    """(W, D + 1), of the user text vector; its last input says that there is one."""
    distance_bias: _Array
    """(B, Q, L + 1), added to the attention to an input so many places back."""
    attention_weight: _Array
    """(B, 3 W, W), queries, keys and values."""
    attention_bias: _Array
    """(B, 3 W)"""
    merge_weight: _Array
    """(B, W, W), joins the heads."""
    merge_bias: _Array
    """(B, W)"""
    hidden_weight: _Array
    """(B, F, W)"""
    hidden_bias: _Array
    """(B, F)"""
    output_weight: _Array
    """(B, W, F)"""
    output_bias: _Array
    """(B, W)"""
    state_scale: _Array
    """(W,), of the normalised state."""
    state_bias: _Array
    """(W,)"""
    sharpness: _Array
    """(1,), length of a user vector: 1 / temperature."""

    @property
    def history_length(self) -> int:
        """Most recent items that are seen."""
        return self.distance_bias.shape[2] - 1

    def scores(self, histories: Lists, user_embeddings: _Array | None = None) -> _Array:
        """Gives (U, N); see `user_vectors`."""
        return self.user_vectors(histories, user_embeddings) @ self.items.T + self.item_bias

    def user_vectors(self, histories: Lists, user_embeddings: _Array | None = None) -> _Array:
        """Gives (U, W).

        Args:
            histories: U lists, oldest first; the newest L items are seen.
            user_embeddings: (U, D), of the user tower; without them the head relies on the history's items.
        """
        result = np.empty((len(histories), self.items.shape[1]), dtype=np.float32)
        # Users with histories of like length share a table, which then has few empty places.
        order = np.argsort(histories.counts, kind="stable")
        for begin in range(0, len(order), USERS_AT_ONCE):
            rows = order[begin : begin + USERS_AT_ONCE]
            text = None if user_embeddings is None else user_embeddings[rows]
            result[rows] = self._vectors(histories.take(rows), text)
        return result

    def _vectors(self, histories: Lists, user_embeddings: _Array | None) -> _Array:
        table, counts = oldest_first(histories, length=self.history_length)
        rows = np.arange(len(table))
        start = np.broadcast_to(self.start, (len(table), 1, len(self.start)))
        states = np.concatenate([start, self.items[table] * self.input_scale], axis=1)
        if user_embeddings is not None:
            given = np.ones((len(table), 1), dtype=np.float32)
            states[rows, counts] += np.concatenate([user_embeddings, given], axis=1) @ self.text_weight.T
        last = len(self.hidden_bias) - 1
        for block in range(last):
            states = self._block(block, states, np.arange(states.shape[1])[None])
        newest = self._block(last, states, counts[:, None])[:, 0]
        vectors = _normalise(newest) * self.state_scale + self.state_bias
        return vectors * (self.sharpness / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))

    def _block(self, block: int, states: _Array, places: NDArray[np.int64]) -> _Array:
        """Gives the new states (U, P, W) at chosen places, (U, P) or (1, P), of the states (U, L + 1, W)."""
        n_users, length, width = states.shape
        n_heads = self.distance_bias.shape[1]
        weight, bias = self.attention_weight[block], self.attention_bias[block]
        chosen = np.take_along_axis(states, places[:, :, None], axis=1)

        def heads(flat: _Array) -> _Array:
            return flat.reshape(n_users, -1, n_heads, width // n_heads).transpose(0, 2, 1, 3)

        queries = heads(_normalise(chosen) @ weight[:width].T + bias[:width])
        both = _normalise(states) @ weight[width:].T + bias[width:]
        keys, values = heads(both[:, :, :width]), heads(both[:, :, width:])
        back = places[:, :, None] - np.arange(length)
        distances = self.distance_bias[block][:, np.maximum(back, 0)].transpose(1, 0, 2, 3)
        logits = queries @ keys.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(width // n_heads))
        logits = np.where(back[:, None] >= 0, logits + distances, np.float32(-1e9))
        attention = np.exp(logits - logits.max(axis=3, keepdims=True))
        attention /= attention.sum(axis=3, keepdims=True)
        seen = (attention @ values).transpose(0, 2, 1, 3).reshape(chosen.shape)
        chosen = chosen + seen @ self.merge_weight[block].T + self.merge_bias[block]
        hidden = np.maximum(_normalise(chosen) @ self.hidden_weight[block].T + self.hidden_bias[block], 0)
        return chosen + hidden @ self.output_weight[block].T + self.output_bias[block]


def _normalise(states: _Array) -> _Array:
    """Gives states of mean 0 and variance 1 over the last axis."""
    centred = states - states.mean(axis=-1, keepdims=True)
    variance = np.einsum("...w,...w->...", centred, centred)[..., None] / np.float32(states.shape[-1])
    return centred / np.sqrt(variance + np.float32(NORM_EPSILON))


def oldest_first(histories: Lists, *, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gives the newest items of each history as one table, oldest first from the left.

    Returns:
        Items (U, L), 0 where there is none, and how many each row has (U,).

    >>> table, counts = oldest_first(Lists.from_arrays([[4, 5, 6], [7]]), length=2)
    >>> table.tolist(), counts.tolist()
    ([[5, 6], [7, 0]], [2, 1])
    """
    counts = np.minimum(histories.counts, length)
    places = np.arange(int(counts.max(initial=0)))
    mask = places[None, :] < counts[:, None]
    table = np.zeros(mask.shape, dtype=np.int64)
    table[mask] = histories.values[((histories.offsets[1:] - counts)[:, None] + places)[mask]]
    return table, counts

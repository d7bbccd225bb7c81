"""From token states to one vector per text."""

from __future__ import annotations

import torch


def pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor, *, pooling: str) -> torch.Tensor:
    """Gives one vector per text.

    Args:
        hidden_states: (B, L, H), padded on the right.
        attention_mask: (B, L), 1 for a real token; every row has at least one.
        pooling: `mean` over the real tokens, the `first` token, or the `last` real token. The last is found
            from the mask, never from the token ids: many decoders pad with their end token.

    Returns:
        (B, H) fp32.

    Raises:
        ValueError: a row without a real token, or an unknown pooling.
    """
    if not bool(attention_mask.any(dim=1).all()):
        raise ValueError("attention_mask: a row has no real token; give an empty text a sentinel token")
    states = hidden_states.float()
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        rows = torch.arange(states.shape[0], device=states.device)
        return states[rows, attention_mask.sum(dim=1) - 1]
    raise ValueError(f"pooling: {pooling!r} is unknown; choose mean, first or last")

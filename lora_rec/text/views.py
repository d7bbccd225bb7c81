"""Two looks at the same thing that a model should find alike: of a history, and of an item."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lora_rec.text.entities import LETTERS_ALONE
from lora_rec.text.templates import SEPARATOR, UNTITLED, fill_template, find_fields

_WORD = re.compile(rf"(?P<space>\s*)(?P<word>[{LETTERS_ALONE}]|[^\s{LETTERS_ALONE}]+)")
_LETTER = re.compile(r"[^\W_]")
MASKED = -1
"""Stands for an item of a history that is not told."""


def crop(history: NDArray[np.int64], generator: np.random.Generator, *, share: float) -> NDArray[np.int64]:
    """Gives a stretch of a history, one item at least."""
    length = max(1, int(share * len(history)))
    start = int(generator.integers(len(history) - length + 1))
    return history[start : start + length]


def mask(history: NDArray[np.int64], generator: np.random.Generator, *, share: float) -> NDArray[np.int64]:
    """Hides a share of the items, one at least and never all of them; none where nothing is to be hidden."""
    n_hidden = min(max(int(share > 0), int(share * len(history))), len(history) - 1)
    view = history.copy()
    view[generator.choice(len(history), size=n_hidden, replace=False)] = MASKED
    return view


def reorder(history: NDArray[np.int64], generator: np.random.Generator, *, share: float) -> NDArray[np.int64]:
    """Shuffles a stretch of a history, of two items at least; none where nothing is to be shuffled."""
    length = min(max(2 * int(share > 0), int(share * len(history))), len(history))
    start = int(generator.integers(len(history) - length + 1))
    view = history.copy()
    view[start : start + length] = generator.permutation(view[start : start + length])
    return view


def history_view(
    history: NDArray[np.int64],
    generator: np.random.Generator,
    *,
    crop_share: float,
    mask_share: float,
    reorder_share: float,
) -> NDArray[np.int64]:
    """Changes a history in one of three ways, chosen at random.

    Source: Xie et al. 2022, "Contrastive learning for sequential recommendation" (CL4SRec), arXiv 2010.14395,
    section 3.3.
    """
    ways = ((crop, crop_share), (mask, mask_share), (reorder, reorder_share))
    way, share = ways[int(generator.integers(len(ways)))]
    return way(history, generator, share=share)


def render_view(
    view: NDArray[np.int64], item_texts: Sequence[str], *, mask_text: str, newest_first: bool
) -> str:
    """Writes a view of a history as histories are written, with `mask_text` for what is hidden.

    >>> render_view(np.array([0, -1]), ["Heat"], mask_text="[MASK]", newest_first=True)
    '[MASK]; Heat'
    """
    ordered = view[::-1] if newest_first else view
    return SEPARATOR.join(mask_text if item == MASKED else item_texts[item] for item in ordered)


def item_view(
    template: str,
    values: Mapping[str, str],
    generator: np.random.Generator,
    *,
    field_dropout: float,
    word_dropout: float,
) -> str:
    """Writes an item without some of its fields and words; one of each stays, and that word has a letter.

    Chinese and Japanese letters are words of their own.

    Args:
        template: of items, see `templates.render_items`.
        values: field to text.
        generator: of random numbers.
        field_dropout: chance of each field to be left out.
        word_dropout: chance of each word to be left out.
    """
    full = [name for name in find_fields(template) if values[name].strip()]
    kept = _keep_some(len(full), generator, dropout=field_dropout)
    dropped = {name for name, keep in zip(full, kept, strict=True) if not keep}
    filled = fill_template(template, {n: "" if n in dropped else v for n, v in values.items()})
    words = list(_WORD.finditer("".join(piece for piece, _ in filled)))
    tells = np.array([_LETTER.search(word["word"]) is not None for word in words], dtype=bool)
    kept = _keep_some(len(words), generator, dropout=word_dropout, may_stay=tells)
    # With what stood before it: Chinese letters have no spaces between them.
    return "".join(word[0] for word, keep in zip(words, kept, strict=True) if keep).strip() or UNTITLED


def _keep_some(
    n: int, generator: np.random.Generator, *, dropout: float, may_stay: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Says which of n parts stay: each by chance, and in any case one, of some parts where they are named."""
    draws = generator.random(n)
    named = draws if may_stay is None else np.where(may_stay, draws, -1.0)
    return (draws >= dropout) | ((named == named.max(initial=-1.0)) & (named >= 0))

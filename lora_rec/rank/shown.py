"""Orders one list that is shown, by ids; items that a bundle has never seen come with their text vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.errors import BundleError, DataError
from lora_rec.rank.candidates import CandidateScorer

_Ints = NDArray[np.int64]


def order_shown(
    scorer: CandidateScorer | None,
    history: Sequence[str],
    *,
    shown: Sequence[str],
    new_items: Mapping[str, NDArray[np.float32]],
    find: Callable[..., _Ints],
) -> list[tuple[str, float]]:
    """Gives ids and scores, best first; equal ones stay in the order that was given.

    Args:
        scorer: None where a bundle has none.
        history: item ids, oldest first; may be empty.
        shown: item ids, each once.
        new_items: id to text vector (H,).
        find: `Recommender.find_items`.

    Raises:
        BundleError: there is no scorer.
        DataError: nothing is shown, the history is one string, an id is unknown or there twice, or a vector
            does not fit.
    """
    if scorer is None:
        raise BundleError(
            "bundle: it ranks a catalogue and has learned from no shown lists; call recommend, or train with"
            " recipes/shown_lists.py"
        )
    if isinstance(history, str):
        raise DataError(f"history: {history!r} is one string; give a list of item ids")
    if isinstance(shown, str) or len(shown := [str(name) for name in shown]) == 0:
        raise DataError(f"shown: {shown!r}; give a list of item ids")
    new_items = {str(name): v for name, v in new_items.items()}
    if len(set(shown)) < len(shown):
        twice = next(item for item in shown if shown.count(item) > 1)
        raise DataError(f"shown: {twice!r} is there twice; give each item once")
    vectors, places = _stack(scorer, new_items), {name: place for place, name in enumerate(new_items)}
    n_known = len(scorer.items)

    def number(names: Sequence[str], where: str) -> _Ints:
        known = [name for name in names if name not in places]
        found = iter(find(known, where=f"{where} (a new item's vector goes into new_items)") if known else ())
        return np.array([n_known + places[n] if n in places else next(found) for n in names], np.int64)

    # A list needs few rows of the catalogue; to copy all of them for one new item would take far longer.
    taken, offered = number([str(name) for name in history], "history"), number(shown, "shown")
    used, rows = np.unique(np.concatenate([taken, offered]), return_inverse=True)
    known = used[used < n_known]
    small = replace(scorer, items=scorer.items[known], item_bias=scorer.item_bias[known])
    small = small.with_items(vectors[used[used >= n_known] - n_known])
    scores = small.scores(Lists.from_arrays([rows[: len(taken)]]), Lists.from_arrays([rows[len(taken) :]]))
    return [(shown[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")]


def _stack(scorer: CandidateScorer, new_items: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Gives the vectors of new items, (M, H)."""
    width = len(scorer.text_mean)
    for name, vector in new_items.items():
        if np.shape(vector) != (width,) or not np.isfinite(vector).all():
            raise DataError(
                f"new_items: {name!r} has a vector of shape {np.shape(vector)}; give ({width},), finite"
                " numbers from load_towers(bundle).read_items"
            )
    return np.array(list(new_items.values()), np.float32).reshape(-1, width)

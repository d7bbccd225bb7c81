"""The pairs of next-sentence prediction: do two texts follow each other?

Source: Devlin et al. 2019, "BERT", arXiv 1810.04805, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of texts, of which some follow each other."""

    firsts: NDArray[np.int64]
    """(P,)"""
    seconds: NDArray[np.int64]
    """(P,)"""
    follow: NDArray[np.bool_]
    """(P,)"""
    sequences: NDArray[np.int64]
    """(P,), the sequence that the first text is of."""


def draw_pairs(sequences: Lists, *, per_sequence: int, seed: int) -> Pairs:
    """Draws neighbours from sequences, and for each its first text with one from elsewhere.

    The other text is drawn from the second texts of all neighbours, so that it is nearly as popular as a real
    one: how popular the second text is tells .51 to .58 of the pairs. One that stands in the sequence itself,
    or follows the first text elsewhere, is drawn again, a few times, and given up where nearly all do.

    Args:
        sequences: numbers of texts, the same for equal texts.
        per_sequence: neighbours of each; one with fewer gives all.
        seed: same seed, same pairs.

    >>> pairs = draw_pairs(Lists.from_arrays([[0, 1], [2, 3]]), per_sequence=9, seed=0)
    >>> list(zip(pairs.firsts.tolist(), pairs.seconds.tolist(), pairs.follow.tolist()))
    [(0, 1, True), (0, 3, False), (2, 3, True), (2, 1, False)]
    """
    generator = np.random.default_rng(seed)
    neighbours: list[tuple[int, int, int]] = []
    for number, sequence in enumerate(sequences):
        n_pairs = len(sequence) - 1
        places = generator.choice(max(n_pairs, 0), size=min(per_sequence, max(n_pairs, 0)), replace=False)
        neighbours += [(number, int(sequence[p]), int(sequence[p + 1])) for p in np.sort(places)]
    known = {(first, second) for _, first, second in neighbours}
    rows: list[tuple[int, int, int, bool]] = []
    for number, first, second in neighbours:
        if first == second:  # the same text twice follows itself, and teaches nothing
            continue
        rows.append((number, first, second, True))
        for draw in generator.integers(len(neighbours), size=20):
            other = neighbours[draw][2]
            if other not in sequences[number] and (first, other) not in known:
                rows.append((number, first, other, False))
                break
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return Pairs(columns[1], columns[2], columns[3].astype(bool), columns[0])

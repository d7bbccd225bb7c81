"""What a publisher's files give, and what is known of a publisher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Dataset
from lora_rec.data.impressions import Impressions
from lora_rec.errors import DataError


@dataclass(frozen=True, eq=False)
class Published:
    """A published data set as it was read.

    Raises:
        DataError: a friend or an impression names a user or an item that is not in the data set.
    """

    name: str
    """The publisher's name in the registry, and the format, e.g. `movielens (RecBole)`."""
    dataset: Dataset
    friends: NDArray[np.int64] | None = None
    """(E, 2), undirected friendships, each once, as internal user ids, the smaller first."""
    impressions: Impressions | None = None
    """What was shown and clicked; internal ids."""
    notes: tuple[str, ...] = ()
    """What was dropped or put right, with counts."""

    def __post_init__(self) -> None:
        checks = []
        if self.friends is not None:
            checks.append(("friends", self.friends, self.dataset.n_users))
        if self.impressions is not None:
            shown = self.impressions
            checks.append(("impressions.users", shown.users, self.dataset.n_users))
            checks.append(("impressions.histories", shown.histories.values, self.dataset.n_items))
            checks.append(("impressions.candidates", shown.candidates.values, self.dataset.n_items))
        for where, ids, n in checks:
            if ids.size and (ids.min() < 0 or ids.max() >= n):
                raise DataError(f"published.{where}: an id is outside 0..{n - 1}; use internal ids")


@dataclass(frozen=True)
class Download:
    """One archive that holds a variant of a published data set."""

    url: str
    digest: str | None = None
    """Hexadecimal MD5 or SHA-256 as its publisher gives it; without one, the first download is pinned."""


@dataclass(frozen=True, eq=False)
class Publisher:
    """How to get and read one publisher's data."""

    name: str
    domain: str
    """Key of `lora_rec.text.domains.DOMAINS`: the templates that suit its texts."""
    home: str
    """The page to download from by hand."""
    licence: str
    """The terms, in a sentence or two."""
    read: Callable[[Path], Published]
    files: str
    """What the folder has to hold, for messages."""
    downloads: dict[str, Download]
    """Variant to archive; the first is the default; empty where there is no plain archive."""

"""The chance that a user likes an item, from both towers' vectors, with numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.bundle import read_manifest, read_unreplaced
from lora_rec.errors import BundleError
from lora_rec.hub import find_bundle

_Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class InterestModel:
    """Weights of the match of both vectors and of each alone, calibrated on validation data."""

    match: _Floats
    """(D,)"""
    user: _Floats
    """(D,)"""
    item: _Floats
    """(D,)"""
    offset: float

    @classmethod
    def load(cls, bundle: str | Path) -> InterestModel:
        """Reads that of a bundle: its folder, or OWNER/NAME on the Hub.

        Raises:
            BundleError: there is no bundle, a file of it was changed, or its towers did not learn the
                objective `interest`.
            HubError: see `lora_rec.load`.
        """
        folder = find_bundle(bundle)

        def read() -> Any:
            read_manifest(folder)  # which compares every file with its digest
            return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

        metrics = read_unreplaced(folder, read)
        if "interest" not in metrics:
            raise BundleError(
                f"{bundle}: its towers did not learn who likes what; train with objectives.interest above 0"
            )
        return cls.from_json(metrics["interest"]["model"])

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> InterestModel:
        """Takes up what `to_json` gave."""
        match, user, item = (np.array(tree[name], dtype=np.float32) for name in ("match", "user", "item"))
        return cls(match, user, item, float(tree["offset"]))

    def to_json(self) -> dict[str, Any]:
        """Gives plain lists."""
        return {
            "match": self.match.tolist(),
            "user": self.user.tolist(),
            "item": self.item.tolist(),
            "offset": self.offset,
        }

    def chances(self, user_vectors: _Floats, item_vectors: _Floats) -> NDArray[np.float64]:
        """Gives (P,), the chance that each user likes the item beside it.

        Args:
            user_vectors: (P, D), of `LoadedTowers.encode_users`.
            item_vectors: (P, D), of `LoadedTowers.encode_items`.

        >>> model = InterestModel(np.ones(2, "f4"), np.zeros(2, "f4"), np.zeros(2, "f4"), offset=-1.0)
        >>> model.chances(np.array([[0.6, 0.8]], "f4"), np.array([[0.6, 0.8]], "f4")).round(3).tolist()
        [0.5]
        """
        match = (user_vectors * item_vectors) @ self.match
        logits = match + user_vectors @ self.user + item_vectors @ self.item + self.offset
        return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))

"""The settings of a push at the end of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from lora_rec.config import require

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_HUB_NAME = re.compile(f"{_PART}/{_PART}")


def is_hub_name(name: str) -> bool:
    """Says whether a text could name a repository on the Hub, whose client has these rules.

    >>> is_hub_name("ann/films"), is_hub_name("runs/a/b"), is_hub_name("/tmp/films"), is_hub_name("ann/a--b")
    (True, False, False, False)
    """
    plain = _HUB_NAME.fullmatch(name) is not None and len(name) <= 96
    return plain and "--" not in name and ".." not in name and not name.endswith(".git")


@dataclass(frozen=True)
class HubSection:
    """Where the bundle goes when it is written; a token is never a setting: `hf auth login` or HF_TOKEN."""

    push: str | None = None
    """OWNER/NAME on the Hub; nothing is pushed when left out. A push that fails costs nothing."""
    private: bool | None = None
    """Whether only its owner sees it; left out, as it is, or as the Hub makes new ones."""
    revision: str | None = None
    """Branch; the main one when left out."""
    commit_message: str | None = None
    item_texts: bool = True
    """false leaves the items' texts out."""
    item_vectors: bool = True
    """false leaves out all that holds vectors or weights of every item, the head with it."""
    licence: str | None = None
    """Of the bundle, by the Hub's name, e.g. apache-2.0."""

    def __post_init__(self) -> None:
        """Checks the name, and that nothing is set in vain."""
        given = [f.name for f in fields(self) if f.name != "push" and getattr(self, f.name) != f.default]
        require(
            [
                (
                    self.push is None or is_hub_name(self.push),
                    f"push: {self.push!r} is no name on the Hub; give owner/name",
                ),
                (
                    self.push is not None or not given,
                    f"{', '.join(given)}: without effect, because nothing is pushed; set push",
                ),
            ]
        )

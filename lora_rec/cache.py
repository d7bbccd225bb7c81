"""Where files lie that can be computed or downloaded again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Gives the folder for what can be made again: LORA_REC_CACHE, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lora_rec"
    return Path(os.environ.get("LORA_REC_CACHE") or default).expanduser()

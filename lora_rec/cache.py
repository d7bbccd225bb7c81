"""Where files lie that can be computed or downloaded again, how large they are, and which may go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lora_rec.errors import DataError
from lora_rec.lock import is_locked

ABOUT = "about.json"
"""Says, in the folder of a prefix cache, what it is of."""
UNFINISHED = "tmp-"
"""So the names begin, there, of folders in which a run writes; it holds their locks."""
KINDS = {
    "prefix": "what frozen layers give for texts",
    "tokens": "token ids of texts",
    "backbones": "language models, converted",
    "datasets": "data, downloaded",
    "translations": "texts, translated",
}


def cache_folder() -> Path:
    """Gives the folder for what can be made again: LORA_REC_CACHE, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lora_rec"
    return Path(os.environ.get("LORA_REC_CACHE") or default).expanduser()


@dataclass(frozen=True)
class Entry:
    """One thing in the cache that can go without the others."""

    kind: str
    """One of `KINDS`."""
    path: Path
    about: str
    """What it is, for people."""
    n_bytes: int
    last_opened: float
    """Seconds since the epoch."""


def list_cache(root: Path | None = None) -> list[Entry]:
    """Gives what lies in the cache, the last opened first."""
    root = root or cache_folder()
    entries = []
    for kind in KINDS:
        for path in sorted((root / kind).glob("*")):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, or a link to nothing
                entries.append(Entry(kind, path, _about(path), *_size_and_time(path)))
    return sorted(entries, key=lambda entry: -entry.last_opened)


def prune_cache(
    root: Path | None = None,
    *,
    keep_bytes: int | None = None,
    older_than: float | None = None,
    kinds: tuple[str, ...] = ("prefix", "tokens"),
) -> list[Entry]:
    """Removes what was not opened for longest; a run that has it open goes on undisturbed.

    What a run is computing stays, and of a link to another place only the link goes.

    Args:
        root: the cache; `cache_folder()` when left out.
        keep_bytes: of these kinds together; what is above goes.
        older_than: seconds since it was opened.
        kinds: that may go.

    Returns:
        What was removed.

    Raises:
        DataError: something cannot be removed.
    """
    gone, kept_bytes, is_full, now = [], 0, False, time.time()
    for entry in list_cache(root):
        if entry.kind not in kinds:
            continue
        kept_bytes += entry.n_bytes
        too_old = older_than is not None and now - entry.last_opened > older_than
        # What does not fit does not make room for what was opened before it.
        is_full |= keep_bytes is not None and kept_bytes > keep_bytes
        if not (too_old or is_full) or any(map(is_locked, (entry.path, *entry.path.glob(f"{UNFINISHED}*")))):
            continue
        is_folder = entry.path.is_dir() and not entry.path.is_symlink()
        try:
            shutil.rmtree(entry.path) if is_folder else entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{entry.path}: cannot be removed ({error.strerror}); see who owns it") from error
        gone.append(entry)
    return gone


def _size_and_time(path: Path) -> tuple[int, float]:
    opened = path.stat()
    if not path.is_dir():
        return opened.st_size, opened.st_mtime
    n_bytes = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes, opened.st_mtime


def _about(path: Path) -> str:
    file = path / ABOUT
    if not file.exists():
        return path.name
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        told = f"{about['backbone']}, {about['precision']}, below layer {about['layers']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path.name}, whose {ABOUT} is damaged"
    return f"{told}, in {sum(1 for _ in path.glob('segment-*'))} segments"


def touch(path: Path) -> None:
    """Notes that something in the cache was opened: what was not for longest goes first."""
    with contextlib.suppress(OSError):  # a cache that cannot be written is read all the same
        os.utime(path)

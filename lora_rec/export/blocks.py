"""Results that are written in blocks over hours: a killed run goes on behind the blocks that it finished."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lora_rec.bundle import move_folder, replace_file
from lora_rec.errors import DataError
from lora_rec.lock import LOCK, FolderLock, clear

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

SETTINGS, FINISHED = "_settings.json", "_finished.jsonl"
"""Readers of a folder of Parquet files pass over such names, which a kill may leave there."""


class Blocks:
    """The folder beside a result in which it is written, and which of its blocks are finished.

    A block is noted with a hash of what was written, after that is on disk. What is found to differ from its
    hash later is not counted as finished. Use it in a `with`: others may write it afterwards, whatever ended
    it. A notebook keeps the last error, and with it everything that was open there.
    """

    def __init__(self, output: Path, settings: Mapping[str, object]) -> None:
        """Opens the folder that an earlier run left, or makes one.

        Args:
            output: file or folder of the result.
            settings: all that decides the blocks; what a run of other settings left is removed.

        Raises:
            DataError: the folder cannot be made, or another process is writing it.
        """
        self.folder = output.parent / f".{output.name}.writing"
        text = json.dumps(settings, sort_keys=True)
        try:
            self._lock = FolderLock(self.folder, error=DataError)
            # Without its settings it is what a run left that was killed while it cleared others' blocks.
            begun = any(path.name != LOCK for path in self.folder.iterdir())
            if begun and _read(self.folder / SETTINGS) != text:
                logger.warning("%s: begun with other settings or inputs; it is begun anew", self.folder)
                clear(self.folder)
        except OSError as error:
            raise DataError(f"{output}: cannot be written ({error.strerror}); name another place") from error
        if not (self.folder / SETTINGS).exists():
            replace_file(self.folder / SETTINGS, text.encode(), advice="free space, or name another place")
        self._digests: dict[int, str] = {}
        for line in _read(self.folder / FINISHED).splitlines():
            block, _, digest = line.partition(" ")
            if len(digest) == hashlib.sha256().digest_size * 2:  # the last line may have been cut by the kill
                self._digests[int(block)] = digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __len__(self) -> int:
        return len(self._digests)

    def digest(self, block: int) -> str | None:
        """Gives the hash of a finished block, None for one that is not."""
        return self._digests.get(block)

    def note(self, block: int, digest: str) -> None:
        """Notes that a block is finished and on disk."""
        try:
            with (self.folder / FINISHED).open("a", encoding="utf-8") as file:
                file.write(f"\n{block} {digest}")  # a line that was cut stays a line of its own
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({error.strerror}); free space: a later call goes on"
                " behind what is finished"
            ) from error
        self._digests[block] = digest

    def remove(self) -> None:
        """Removes the folder, once what is wanted of it lies elsewhere."""
        self._lock.remove()

    def finish(self, target: Path) -> None:
        """Moves the folder to its place, once all blocks are in it; an older one is replaced.

        Raises:
            DataError: it cannot be moved; the older one is where it was.
        """
        try:
            move_folder(self.folder, target)
        except OSError as error:
            raise DataError(f"{target}: cannot be replaced ({error.strerror}); name another place") from error
        for name in (SETTINGS, FINISHED, LOCK):
            (target / name).unlink(missing_ok=True)
        self._lock.release()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""

"""One process at a time writes to a folder, and the lock ends with the process, whatever ended that."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

LOCK = ".lock"
PATIENCE = 10.0
"""Seconds: processes that a killed one leaves behind may hold its lock for a moment."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems say that have none, as NFS without its lock service."""


class FolderLock:
    """The lock of a folder, held by this process until it is released; it may be taken more than once."""

    def __init__(self, folder: Path, *, error: Callable[[str], Exception]) -> None:
        """Takes the lock.

        Args:
            folder: is made where it is not there.
            error: made of a text where another process holds it, after ten seconds, and raised.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self._folder = folder
        # A singleton, so that a second run of the same process, as in a notebook, is not taken for another's.
        self._lock = FileLock(folder / LOCK, is_singleton=True)
        while not self._take(error):
            pass

    def _take(self, error: Callable[[str], Exception]) -> bool:
        """Says false where the folder went while its lock was waited for: the other process has finished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=PATIENCE)
        except Timeout as timeout:
            raise error(
                f"{self._folder}: another process is writing it; wait for that one, or give output another"
                " place"
            ) from timeout
        except FileNotFoundError:
            return False
        except OSError as problem:
            if problem.errno not in NO_LOCKS:
                raise
            logger.warning(
                "%s: this file system has no locks; let one process at a time write it", self._folder
            )
        return True

    def remove(self) -> None:
        """Removes the folder, as far as it can be, and lets others have its place."""
        with contextlib.suppress(OSError):
            clear(self._folder)
            # From here on somebody who waited may begin in it: then it stays.
            (self._folder / LOCK).unlink()
            self._folder.rmdir()
        self.release()

    def release(self) -> None:
        """Lets others have it."""
        self._lock.release(force=True)


def is_locked(folder: Path) -> bool:
    """Says whether somebody holds the lock of a folder, this process included."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False  # it went meanwhile, or there are no locks here
    lock.release()
    return False


def clear(folder: Path) -> None:
    """Removes what is in a folder that is locked, but for the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()

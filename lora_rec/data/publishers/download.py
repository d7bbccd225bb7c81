"""Downloads an archive once, checks it, and unpacks it whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from lora_rec.errors import DataError

logger = logging.getLogger(__name__)

_TIMEOUT = 60.0
"""Seconds without a byte before a download fails."""
_ALGORITHMS = {32: "md5", 64: "sha256"}


def fetch_archive(url: str, folder: Path, *, digest: str | None, by_hand: str) -> Path:
    """Downloads a zip archive and unpacks it into a folder; does nothing where the folder is there.

    The folder appears when everything is in it: a run that is killed leaves nothing that is read. Without a
    digest, the SHA-256 of the first download is kept beside the folder, and a later one has to have it.

    Args:
        url: of the archive.
        folder: where its files are to lie.
        digest: MD5 (32 hexadecimal digits) or SHA-256 (64) of the archive.
        by_hand: what to do without a network; ends each message.

    Raises:
        DataError: no network, a wrong checksum, or no zip archive.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    pin = folder.with_name(f"{folder.name}.sha256")
    expected = digest or (pin.read_text(encoding="ascii").strip() if pin.is_file() else None)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        archive, unpacked = Path(scratch) / "archive", Path(scratch) / "files"
        found = _download(url, archive, by_hand=by_hand)
        if expected is not None and found[_ALGORITHMS[len(expected)]] != expected.lower():
            kind = _ALGORITHMS[len(expected)]
            raise DataError(
                f"{url}: the {kind} is {found[kind]}, not {expected}: the file is damaged or was changed; "
                f"try again, or {by_hand}" + ("" if digest else f" (or delete {pin} to take the new file)")
            )
        _unpack(archive, unpacked, url=url, by_hand=by_hand)
        if digest is None and expected is None:
            _write_pin(pin, found["sha256"])
            logger.warning("%s: no checksum is known; its SHA-256 is now pinned in %s", url, pin)
        try:
            os.rename(unpacked, folder)
        except OSError:
            if not folder.is_dir():  # another process may have been faster
                raise
    return folder


def _download(url: str, target: Path, *, by_hand: str) -> dict[str, str]:
    """Writes the file and gives its digests."""
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in _ALGORITHMS.values()}
    logger.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, open(target, "wb") as file:
            size, length = 0, answer.headers.get("Content-Length")
            while block := answer.read(1 << 20):
                size += file.write(block)
                for found in digests.values():
                    found.update(block)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: the download failed ({reason}); {by_hand}") from error
    if length is not None and size != int(length):
        raise DataError(f"{url}: broke off after {size:,} of {int(length):,} bytes; try again, or {by_hand}")
    return {name: found.hexdigest() for name, found in digests.items()}


def _unpack(archive: Path, folder: Path, *, url: str, by_hand: str) -> None:
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)  # takes drive letters, leading slashes and ".." off the names
    except zipfile.BadZipFile as error:
        raise DataError(f"{url}: gave no zip archive; {by_hand}") from error


def _write_pin(pin: Path, digest: str) -> None:
    scratch = pin.with_name(f".{pin.name}.{os.getpid()}")
    scratch.write_text(f"{digest}\n", encoding="ascii")
    os.replace(scratch, pin)

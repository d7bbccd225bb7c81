"""A bundle on disk: written whole or not at all, checked file by file before anything is built from it."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from lora_rec.errors import BundleError, LoraRecError
from lora_rec.lock import LOCK, FolderLock, is_locked
from lora_rec.schema import Manifest

MANIFEST = "bundle.json"
TRIES = 5
Read = TypeVar("Read")
PRETRAINED = "pretrain.json"
"""In the folder of an adapter that was trained without labels."""


def check_output(output: str | Path, *, marker: str = MANIFEST, what: str = "bundle") -> Path:
    """Checks, before a run, that its result can be written there.

    Args:
        output: folder of the result.
        marker: file by which an older result is known, which may be replaced.
        what: the result is called.

    Raises:
        BundleError: the place holds something that is not such a result, or cannot be written or replaced.
    """
    folder = place_of(output)
    if folder.is_mount():
        raise BundleError(
            f"output: {output} is where a disk is mounted, and no folder can be moved there; name one in it"
        )
    if folder.exists() and not (folder / marker).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"output: {output} exists and is no {what}; name another folder or move that away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(
            f"output: {folder.parent} cannot be made ({error.strerror}); name another folder"
        ) from error
    if not os.access(folder.parent, os.W_OK):
        raise BundleError(f"output: {folder.parent} cannot be written; name another folder")
    return folder


def place_of(output: str | Path) -> Path:
    """Gives the folder itself, beside which things are written: not a link, nor ".", which has no parent."""
    folder = Path(output)
    return folder.resolve() if folder.is_symlink() or folder.name in ("", "..") else folder


def write_bundle(output: str | Path, manifest: Manifest, fill: Callable[[Path], None]) -> Path:
    """Writes a bundle beside its place and moves it there when it is whole; an older bundle is replaced.

    Args:
        output: folder of the bundle.
        manifest: its `files` are filled in here.
        fill: writes all files but bundle.json into the folder that it is given.
    """

    def fill_and_sign(folder: Path) -> None:
        fill(folder)
        files = {name: file_digest(folder / name) for name in list_files(folder)}
        (folder / MANIFEST).write_text(manifest_text(replace(manifest, files=files)), encoding="utf-8")

    return write_folder(check_output(output), fill_and_sign)


def write_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Writes a folder beside its place and moves it there when it is whole; an older one is replaced.

    Raises:
        BundleError: it cannot be written, and nothing of it is left; or it is whole and cannot be moved, and
            stays where it was written.
    """
    _remove_unfinished(target)
    # Made by name, not by tempfile, whose folders and files are for the owner alone whatever the umask says.
    scratch = target.with_name(f".{target.name}.tmp-{secrets.token_hex(4)}")
    folder = scratch / target.name
    folder.mkdir(parents=True)
    lock = FolderLock(scratch, error=BundleError)
    try:
        fill(folder)
        readers = folder.stat().st_mode & 0o666
        for name in list_files(folder):
            with open(folder / name, "rb") as file:
                os.fsync(file.fileno())
            # safetensors makes its files for the owner alone, and who serves them may be somebody else.
            (folder / name).chmod(readers)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()
        if isinstance(error, (OSError, SafetensorError)):
            raise BundleError(
                f"{target}: cannot be written ({getattr(error, 'strerror', None) or error}); free space, or"
                " name another folder"
            ) from error
        raise
    try:
        move_folder(folder, target)
    except OSError as error:
        (scratch / LOCK).unlink(missing_ok=True)  # so that the next run leaves it there
        raise BundleError(
            f"{target}: cannot be replaced ({error.strerror}); the result is whole and lies in {folder};"
            " move it"
        ) from error
    else:
        shutil.rmtree(scratch, ignore_errors=True)
    finally:
        lock.release()
    return target


def _remove_unfinished(target: Path) -> None:
    """Removes what killed runs began beside a place: it has a lock, which nobody holds."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):
        if (left / LOCK).exists() and not is_locked(left):
            shutil.rmtree(left, ignore_errors=True)


def move_folder(scratch: Path, target: Path) -> None:
    """Moves a whole folder to its place beside it; an older one is replaced, or stays where that fails.

    On Linux a kill at any moment leaves the old one or the new one there, on nearly all file systems.
    """
    if not target.exists():
        os.rename(scratch, target)
        return
    if _exchange(scratch, target):
        shutil.rmtree(scratch, ignore_errors=True)
        return
    old = target.with_name(f".{target.name}.old-{secrets.token_hex(4)}")
    os.rename(target, old)
    try:
        os.rename(scratch, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; false, and nothing done, where the system or the disk has no such step.

    Source: renameat2(2) of Linux, with RENAME_EXCHANGE, which Python's os module does not have.
    """
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return int(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)) == 0


def rewrite_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Replaces bundle.json alone, in one step: whoever reads it sees the old or the new one, never a part."""
    replace_file(Path(folder) / MANIFEST, manifest_text(manifest).encode("utf-8"))


def manifest_text(manifest: Manifest) -> str:
    """Gives what bundle.json holds."""
    return json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n"


def replace_file(path: Path, content: bytes, *, advice: str = "copy the bundle elsewhere") -> None:
    """Writes a file beside its place and moves it there when it is whole.

    Args:
        path: in a folder that is there.
        content: all of it.
        advice: what to do where it cannot be written.

    Raises:
        BundleError: it cannot be written.
    """
    try:
        scratch = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
        try:
            with scratch.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror}); {advice}") from error


def read_manifest(folder: str | Path) -> Manifest:
    """Reads bundle.json and checks every file that it names.

    Raises:
        BundleError: there is no bundle, or a file is missing or changed.
    """
    root = Path(folder)
    file = root / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"{folder}: no bundle here ({MANIFEST} is missing); give the output folder of a run"
        )
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{folder}/{MANIFEST}: not valid JSON ({error}); get the bundle again") from error
    manifest = Manifest.from_json(tree if isinstance(tree, dict) else {}, where=str(folder))
    for name, digest in manifest.files.items():
        part = Path(name)
        if part.is_absolute() or ".." in part.parts:
            raise BundleError(
                f"{folder}: bundle.json names a file outside of the bundle ({name}); do not use it"
            )
        if not (root / name).is_file():
            raise BundleError(f"{folder}/{name}: missing; get the bundle again or run its recipe")
        if file_digest(root / name) != digest:
            raise BundleError(
                f"{folder}/{name}: changed since the bundle was written (its SHA-256 differs);"
                " get the bundle again or run its recipe"
            )
    return manifest


def read_unreplaced(folder: str | Path, read: Callable[[], Read]) -> Read:
    """Reads a bundle of which a run may write the next one meanwhile: all of one, never parts of two.

    Args:
        folder: of the bundle.
        read: opens its files by their paths.

    Raises:
        BundleError: it was replaced each time; or what `read` raises.
    """
    file = Path(folder) / MANIFEST
    for _ in range(TRIES):
        before = file.read_bytes() if file.is_file() else b""
        try:
            found = read()
        except (LoraRecError, OSError):
            if file.is_file() and file.read_bytes() != before:
                continue
            raise
        if file.is_file() and file.read_bytes() == before:
            return found
    raise BundleError(f"{folder}: replaced again and again while it was read; load it again")


def list_files(folder: Path) -> list[str]:
    """Gives the paths of all files, relative and sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def file_digest(path: Path) -> str:
    """Gives a file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

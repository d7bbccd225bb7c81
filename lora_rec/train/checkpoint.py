"""Checkpoints of a run: written whole or not at all, checked before they are used, two of them kept.

A checkpoint is a folder of tensors (safetensors), numbers (JSON) and a manifest with the SHA-256 of both. It
is written under another name, forced to disk and moved to its place, so whatever kills a run leaves the older
ones as they were. Nothing in it is a pickle: reading one executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from lora_rec.errors import TrainingError
from lora_rec.lock import FolderLock, clear

logger = logging.getLogger(__name__)

FORMAT = 2
REPLACED = ".replaced-"
KEPT = 2
MANIFEST, TENSORS, STATE = "manifest.json", "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on as if nothing had happened."""

    step: int
    """Optimizer steps done."""
    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]
    """Whatever is no tensor, as JSON has it."""


class Damaged(Exception):
    """A checkpoint that is not what was written; the text says what is wrong."""


class Checkpoints:
    """The checkpoints of one run, in a folder beside its output."""

    def __init__(
        self,
        folder: str | Path,
        *,
        run: Mapping[str, Any],
        every_seconds: float = 300.0,
        resume: bool = True,
        writes: bool = True,
    ) -> None:
        """Makes the folder.

        Args:
            folder: of these checkpoints alone.
            run: what must be the same for a run to go on: settings and what the data and the bases are, as
                JSON has it, flat.
            every_seconds: see `due`.
            resume: false removes what an earlier run left.
            writes: false in all processes but one: they read alone.

        Raises:
            TrainingError: the folder cannot be made or written, another process is writing it, or another run
                left checkpoints there.
        """
        self.folder = Path(folder)
        self.run = json.loads(json.dumps(dict(run)))
        self.every_seconds = every_seconds
        self.writes = writes
        self._last = time.monotonic()
        if writes:
            self._take_folder(resume=resume)
        try:
            if resume:
                self._refuse_another_run()
        except TrainingError:
            if writes:
                self._lock.release()
            raise

    def _take_folder(self, *, resume: bool) -> None:
        try:
            self._lock = FolderLock(self.folder, error=TrainingError)
            for part in self.folder.glob(f"{REPLACED}*"):  # of a run that was killed between two names
                target = self.folder / part.name.removeprefix(REPLACED)
                if target.exists():
                    shutil.rmtree(part)
                else:
                    os.rename(part, target)
            if not resume:
                clear(self.folder)
            for part in self.folder.glob(".writing-*"):  # of a run that was killed
                shutil.rmtree(part)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _refuse_another_run(self) -> None:
        """Looks at what was left, before the work that comes before the training; `load` looks again."""
        for _, folder in self._found():
            try:
                run = json.loads((folder / MANIFEST).read_bytes())["run"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged
            self._check_run(run, folder)
            return

    def due(self) -> bool:
        """Says whether the last checkpoint, or the start, is so long ago that another should be written."""
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint and removes all but the newest two.

        Raises:
            TrainingError: the disk is full or cannot be written; the older checkpoints are as they were.
        """
        self._last = time.monotonic()
        if not self.writes:
            return
        # Copies, because safetensors refuses tensors that share memory.
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.tensors.items()}
        contents = {
            TENSORS: save(tensors),
            STATE: json.dumps(checkpoint.state).encode(),
        }
        manifest = {
            "format": FORMAT,
            "step": checkpoint.step,
            "run": self.run,
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        }
        contents[MANIFEST] = json.dumps(manifest, indent=1).encode()
        target = self.folder / f"step-{checkpoint.step:08d}"
        scratch = self.folder / f".writing-{checkpoint.step:08d}"
        # The same step again, at the end of an epoch or after a resume: the older one goes last.
        aside = self.folder / f"{REPLACED}{target.name}"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            for name, content in contents.items():
                _write_to_disk(scratch / name, content)
            _sync_folder(scratch)
            if target.exists():
                os.rename(target, aside)
            os.rename(scratch, target)
            _sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if aside.exists() and not target.exists():
                os.rename(aside, target)
            raise self._cannot_write(error) from error
        shutil.rmtree(aside, ignore_errors=True)
        for _, old in self._found()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> Checkpoint | None:
        """Gives the newest checkpoint that is whole; None where there is none.

        Raises:
            TrainingError: another run left them, or none of them is whole.
        """
        found = self._found()
        for step, folder in found:
            try:
                checkpoint = self._read(folder)
            except Damaged as error:
                logger.warning("%s: damaged (%s); looking for an older one", folder, error)
                continue
            logger.info("going on from %s, step %d", folder, step)
            return checkpoint
        if found:
            raise TrainingError(
                f"{self.folder}: none of its {len(found)} checkpoints is whole;"
                " checkpoint.resume=false starts anew"
            )
        return None

    def remove(self) -> None:
        """Removes all of them, once the run's result is safely on disk."""
        if self.writes:
            self._lock.remove()

    def _found(self) -> list[tuple[int, Path]]:
        """Gives step and folder of each, newest first."""
        if not self.folder.is_dir():
            return []
        named = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)

    def _read(self, folder: Path) -> Checkpoint:
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            contents = {name: (folder / name).read_bytes() for name in (TENSORS, STATE)}
            if manifest["format"] != FORMAT:
                raise TrainingError(
                    f"{folder}: of another version of lora_rec (format {manifest['format']}, not {FORMAT});"
                    " go on with that one, or checkpoint.resume=false starts anew"
                )
            for name, content in contents.items():
                if hashlib.sha256(content).hexdigest() != manifest["files"][name]:
                    raise Damaged(f"{name}: its SHA-256 differs")
            self._check_run(manifest["run"], folder)
            return Checkpoint(int(manifest["step"]), load(contents[TENSORS]), json.loads(contents[STATE]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{type(error).__name__}: {error}") from error

    def _check_run(self, run: Mapping[str, Any], folder: Path) -> None:
        """Refuses the checkpoint of another run, and says what differs."""
        names = dict.fromkeys((*run, *self.run))
        other = [
            f"{n} was {run.get(n)}, is {self.run.get(n)}" for n in names if run.get(n) != self.run.get(n)
        ]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise TrainingError(
                f"{folder}: left by another run ({'; '.join(other[:3])}{more}); give output another folder,"
                " or checkpoint.resume=false starts anew"
            )

    def _cannot_write(self, error: OSError) -> TrainingError:
        whole = self._found()
        left = f"; the checkpoint of step {whole[0][0]} is whole" if whole else ""
        return TrainingError(
            f"{self.folder}: cannot be written ({error.strerror or error}){left}; free the disk or give"
            " output another place, then run the same command again"
        )


def _write_to_disk(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Forces a folder's entries to disk; where folders cannot be opened, the system does it in its time."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)

"""What the frozen layers give for a text, kept on disk: computed once, read in every later step and run.

One folder per setting, named by the hash of everything that decides the states. In it, one folder per
addition (`segment`) with the states of all its texts one after the other, memory-mapped when read. A segment
is written beside its final name and renamed when it is whole, so a killed run leaves nothing that is read. A
text is known by the hash of its token ids: what the template, the tokenizer or the cut-off change, changes
those.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lora_rec.bundle import replace_file
from lora_rec.cache import ABOUT, UNFINISHED, touch
from lora_rec.errors import TrainingError
from lora_rec.lock import LOCK, FolderLock, is_locked
from lora_rec.text.collate import TokenBatch, TokenizedTexts, padding_mask, plan_micro_batches
from lora_rec.towers.two_tower import Tower
from lora_rec.train.sharding import most_passes

logger = logging.getLogger(__name__)

FORMAT = 1
ABANDONED_SECONDS = 3600.0
"""After which a segment that is begun, and that no process has locked, is one of a run that was killed."""
_Known = dict[bytes, tuple[np.memmap, int]]
"""Hash of a text's token ids to the states of its segment, and where in them its own begin."""
# numpy has no bfloat16: its bits are kept as whole numbers.
_STORED = {"fp32": np.float16, "bf16": np.uint16}
_LIMIT = 60000.0  # float16 ends at 65504


def cache_key(tower: Tower) -> str:
    """Gives the hash of what decides the frozen states beside the token ids."""
    info = tower.backbone_info
    parts = {
        "format": FORMAT,
        "backbone": info.fingerprint,  # covers weights, configuration and tokenizer
        "precision": info.precision.key,
        "layer": tower.first_trained_layer,
        "attention": getattr(info.model.config, "_attn_implementation", None),  # type: ignore[union-attr]
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


class CachedPrefix:
    """Batches of hidden states for a fixed list of texts, read from the cache."""

    def __init__(
        self, tokens: TokenizedTexts, places: list[tuple[np.memmap, int]], *, precision: str
    ) -> None:
        """Keeps where each text's states lie; use `open_prefix_cache`."""
        self._lengths = tokens.lengths
        self._places = places
        self._precision = precision

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,), tokens of each text."""
        return self._lengths

    def batch(self, indices: NDArray[np.int64]) -> TokenBatch:
        """Gives the chosen texts' states, padded with zeros on the right."""
        mask = padding_mask(self._lengths[indices])
        first = self._places[indices[0]][0]
        states = np.zeros((*mask.shape, first.shape[1]), dtype=first.dtype)
        for row, index in enumerate(indices):
            segment, start = self._places[index]
            length = self._lengths[index]
            states[row, :length] = segment[start : start + length]
        tensor = torch.from_numpy(states)
        if self._precision == "bf16":
            tensor = tensor.view(torch.bfloat16)
        return TokenBatch(torch.from_numpy(mask.astype(np.int64)), hidden_states=tensor)


def open_prefix_cache(
    tower: Tower,
    tokens: TokenizedTexts,
    *,
    root: Path,
    token_budget: int,
    accelerator: Accelerator | None = None,
    progress: Callable[[Iterable[NDArray[np.int64]]], Iterable[NDArray[np.int64]]] = iter,
) -> CachedPrefix:
    """Computes what is missing and opens the cache for these texts.

    Processes that share the folder share the work: each computes every P-th micro-batch. On a host with a
    folder of its own each then computes what is still missing there.

    Args:
        tower: its frozen layers are run; its adapters play no part.
        tokens: (n) tokenised texts, the same in every process.
        root: folder of all caches.
        token_budget: padded tokens in one micro-batch.
        accelerator: of accelerate; None is a process alone.
        progress: wraps the micro-batches that have to be computed.

    Raises:
        TrainingError: the cache cannot be written, the states do not fit half precision, or the backbone does
            not split where it should: the whole model and its two halves give different vectors.
    """
    folder = root / "prefix" / cache_key(tower)
    digests = [hashlib.sha256(tokens[i].tobytes()).digest()[:16] for i in range(len(tokens))]

    def compute(known: _Known, *, place: int, n_places: int) -> int:
        missing = {digest: i for i, digest in enumerate(digests) if digest not in known}
        if not most_passes(accelerator, tower.is_sharded, len(missing)):
            return 0
        indices = np.fromiter(missing.values(), dtype=np.int64)
        _check_split(tower, tokens, indices[:4] if len(indices) else np.zeros(1, dtype=np.int64))
        # Micro-batches are those of a process alone, so that the bits of the states are, too.
        plan = plan_micro_batches(tokens.lengths[indices], token_budget=token_budget)
        batches = [indices[rows] for rows in plan[place::n_places]]
        n_passes = most_passes(accelerator, tower.is_sharded, len(batches))
        if batches:
            try:
                _write_segment(tower, tokens, batches, digests, folder, progress=progress)
            except OSError as error:
                raise TrainingError(
                    f"{root}: cannot be written ({error.strerror}); free space, set LORA_REC_CACHE, or"
                    " train.prefix_cache=false"
                ) from error
        for _ in range(n_passes - len(batches)):
            tower.encode_prefix(tokens.batch(np.zeros(1, dtype=np.int64)).to(tower.device))
        return sum(map(len, batches))

    n_computed = 0
    known = _open_segments(folder, tower)
    if accelerator is not None and accelerator.num_processes > 1:
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        n_computed = compute(known, place=accelerator.process_index, n_places=accelerator.num_processes)
        accelerator.wait_for_everyone()
        known = _open_segments(folder, tower)
    n_computed += compute(known, place=0, n_places=1)
    if n_computed:
        known = _open_segments(folder, tower)
    touch(folder)
    logger.info("prefix cache %s: %d texts, %d computed now", folder.name, len(tokens), n_computed)
    return CachedPrefix(tokens, [known[d] for d in digests], precision=tower.backbone_info.precision.compute)


def _open_segments(folder: Path, tower: Tower) -> _Known:
    info, known = tower.backbone_info, _Known()
    for segment in sorted(folder.glob("segment-*")):
        try:
            offsets = np.load(segment / "offsets.npy")
            digests = (segment / "digests.bin").read_bytes()
            states = _map_states(segment, (int(offsets[-1]), info.hidden_size), info.precision.compute, "r")
            if len(digests) != 16 * (len(offsets) - 1):
                raise ValueError("digests.bin has another length")
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s: damaged (%s); it is computed anew", segment, error)
            shutil.rmtree(segment, ignore_errors=True)
            continue
        for i, start in enumerate(offsets[:-1]):
            known[digests[16 * i : 16 * i + 16]] = (states, int(start))
    return known


def _map_states(folder: Path, shape: tuple[int, int], precision: str, mode: Literal["r", "r+"]) -> np.memmap:
    return np.memmap(folder / "states.bin", dtype=_STORED[precision], mode=mode, shape=shape)


def _write_segment(
    tower: Tower,
    tokens: TokenizedTexts,
    batches: list[NDArray[np.int64]],
    digests: list[bytes],
    folder: Path,
    *,
    progress: Callable[[Iterable[NDArray[np.int64]]], Iterable[NDArray[np.int64]]],
) -> None:
    info = tower.backbone_info
    indices = np.concatenate(batches)
    offsets = np.concatenate([[0], np.cumsum(tokens.lengths[indices])])
    written = b"".join(digests[i] for i in indices)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ABOUT).exists():
        about: dict[str, str | int] = {
            "backbone": info.source.base_model_id,
            "precision": info.precision.name,
        }
        about |= {"layers": tower.first_trained_layer, "width": info.hidden_size}
        replace_file(folder / ABOUT, json.dumps(about).encode(), advice="free space, or set LORA_REC_CACHE")
    for left in folder.glob(f"{UNFINISHED}*"):
        if not is_locked(left) and time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=UNFINISHED))
    lock = FolderLock(scratch, error=TrainingError)  # so that `lora-rec cache` leaves it alone
    try:
        shape = (int(offsets[-1]), info.hidden_size)
        with open(scratch / "states.bin", "wb") as file:
            # A map of a file with holes ends the process where the disk is full.
            n_bytes = shape[0] * shape[1] * np.dtype(_STORED[info.precision.compute]).itemsize
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
        states = _map_states(scratch, shape, info.precision.compute, "r+")
        device, start = tower.device, 0
        for rows in progress(batches):
            hidden = tower.encode_prefix(tokens.batch(rows).to(device)).cpu()
            for row, index in enumerate(rows):
                stop = start + int(tokens.lengths[index])
                states[start:stop] = _to_stored(hidden[row, : stop - start], info.precision.compute)
                start = stop
        states.flush()
        np.save(scratch / "offsets.npy", offsets)
        (scratch / "digests.bin").write_bytes(written)
        for name in ("offsets.npy", "digests.bin"):
            with open(scratch / name, "rb") as file:
                os.fsync(file.fileno())
        (scratch / LOCK).unlink(missing_ok=True)
        # Named like no other: a run that began with the same texts may have written its own by now.
        unique = scratch.name.removeprefix(UNFINISHED)
        os.rename(scratch, folder / f"segment-{hashlib.sha256(written).hexdigest()[:16]}-{unique}")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    finally:
        lock.release()


def _to_stored(states: torch.Tensor, precision: str) -> NDArray[np.generic]:
    if precision == "bf16":
        return states.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
    if not bool(torch.isfinite(states).all()) or float(states.abs().max()) > _LIMIT:
        raise TrainingError(
            "train.prefix_cache: the frozen layers give values beyond half precision;"
            " set train.prefix_cache=false, or the tower's precision to bf16"
        )
    return states.to(torch.float16).numpy()


@torch.no_grad()
def _check_split(tower: Tower, tokens: TokenizedTexts, indices: NDArray[np.int64]) -> None:
    """Compares the whole model with its two halves on a few texts."""
    batch = tokens.batch(indices).to(tower.device)
    assert batch.input_ids is not None  # token batches have ids
    options = tower.backbone_info.options
    whole = tower._halves.run_whole(batch.input_ids, batch.attention_mask, **options)
    states = tower.encode_prefix(batch)
    halves = tower._halves.run_upper(states, batch.attention_mask, **options)
    mask = batch.attention_mask.bool()
    difference = float((whole[mask].float() - halves[mask].float()).abs().max())
    if not difference <= 1e-3 * (1 + float(whole[mask].float().abs().max())):
        raise TrainingError(
            f"train.prefix_cache: the backbone split at layer {tower.first_trained_layer} gives other states"
            f" than the whole model (off by {difference:.2g}); set train.prefix_cache=false"
        )

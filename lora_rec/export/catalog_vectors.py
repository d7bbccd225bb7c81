"""Vectors of a whole catalogue, encoded in blocks into one .npy file that is memory-mapped when read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.bundle import MANIFEST, file_digest, read_manifest
from lora_rec.data.parts import Progress, without_progress
from lora_rec.data.stored import ITEMS, StoredDataset
from lora_rec.errors import DataError
from lora_rec.export.blocks import Blocks
from lora_rec.text.templates import find_fields

if TYPE_CHECKING:
    from lora_rec.export.loaded import LoadedTowers

ITEMS_AT_ONCE = 8192
VECTORS = "vectors.npy"


def encode_catalog(
    bundle: str | Path,
    stored: StoredDataset,
    output: str | Path,
    *,
    item_backbone: str | None = None,
    device: str = "cpu",
    token_budget: int = 4096,
    progress: Progress = without_progress,
) -> NDArray[np.float32]:
    """Encodes all items of a stored data set with a bundle's item tower; see `write_vectors` for how.

    Args:
        bundle: its folder.
        stored: the items; it must have the fields that the bundle's item texts are made of.
        output: a .npy file.
        item_backbone: where the item tower's base lies, if the bundle cannot know it (a local folder).
        device: of torch.
        token_budget: padded tokens in one micro-batch.
        progress: wraps the blocks.

    Returns:
        (n_items, D), memory-mapped.

    Raises:
        BundleError: it has no item tower, or another base.
        DataError: a field is missing, or the file cannot be written.
    """
    towers = _load_item_tower(Path(bundle), backbone=item_backbone, device=device)
    names = [name for name in find_fields(towers.manifest.text.item_template) if name in stored.item_fields]

    def encode_block(start: int, stop: int) -> NDArray[np.float32]:
        fields: dict[str, Sequence[str]] = {name: stored.item_fields[name][start:stop] for name in names}
        return towers.encode_items(towers.render_items(fields), token_budget=token_budget)

    return write_vectors(
        output,
        encode_block,
        n_items=stored.n_items,
        width=towers.manifest.width,
        made_of={
            "bundle": file_digest(Path(bundle) / MANIFEST),
            "items": stored.digests[ITEMS],
            "fields": ", ".join(stored.item_fields),  # the file of the items numbers them
        },
        progress=progress,
    )


def _load_item_tower(folder: Path, *, backbone: str | None, device: str) -> LoadedTowers:
    """Loads the item tower without the other one, which would only take memory."""
    from torch import nn

    from lora_rec.export.loaded import LoadedTowers
    from lora_rec.export.towers import load_tower

    manifest = replace(read_manifest(folder), user_tower=None)
    tower = load_tower(folder, manifest, "item_tower", backbone=backbone, precision=None, device=device)
    return LoadedTowers(manifest, nn.ModuleDict({"item_tower": tower}))


def write_vectors(
    output: str | Path,
    encode_block: Callable[[int, int], NDArray[np.float32]],
    *,
    n_items: int,
    width: int,
    made_of: Mapping[str, str],
    items_at_once: int = ITEMS_AT_ONCE,
    progress: Progress = without_progress,
) -> NDArray[np.float32]:
    """Writes a file of vectors block by block; a call after a kill encodes only what is missing.

    Blocks that an earlier call finished are read and compared with their hashes, and encoded again where they
    differ. The file appears by one rename when it is whole.

    Args:
        output: a .npy file, which is replaced.
        encode_block: gives the vectors (n, D) of the items from the first number up to, without, the second.
        n_items: of the catalogue.
        width: D.
        made_of: what decides the vectors, e.g. hashes of the bundle and the items; where another call of
            other things was killed, its blocks are not used.
        items_at_once: in a block.
        progress: wraps the first items of the blocks.

    Returns:
        (n_items, D), memory-mapped.

    Raises:
        DataError: the file cannot be written.
    """
    target = Path(output)
    if target.is_dir() or target.suffix != ".npy":
        raise DataError(f"{output}: is no .npy file; name one")
    settings = dict(made_of) | {"n_items": n_items, "width": width, "items_at_once": items_at_once}
    with Blocks(target, settings) as blocks:
        scratch = blocks.folder / VECTORS
        start_of_data = _make_file(scratch, n_items, width)
        starts: Iterable[int] = range(0, n_items, items_at_once)
        try:
            with scratch.open("r+b") as file:
                for start in progress(starts, "encoding items"):
                    stop = min(start + items_at_once, n_items)
                    block, place = start // items_at_once, start_of_data + 4 * start * width
                    finished = blocks.digest(block)
                    if finished and finished == _digest_at(file, place, 4 * (stop - start) * width):
                        continue
                    content = np.ascontiguousarray(encode_block(start, stop), dtype="<f4")
                    if content.shape != (stop - start, width):
                        raise ValueError(f"encode_block: shape {content.shape} for {stop - start} by {width}")
                    file.seek(place)
                    file.write(content.tobytes())
                    file.flush()
                    os.fsync(file.fileno())
                    blocks.note(block, hashlib.sha256(content.tobytes()).hexdigest())
            os.replace(scratch, target)
        except OSError as error:
            raise DataError(
                f"{target}: cannot be written ({error.strerror}); free space: a later call goes on behind the"
                f" {len(blocks)} blocks that are finished"
            ) from error
        blocks.remove()
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _make_file(path: Path, n_items: int, width: int) -> int:
    """Makes an .npy file of its full size unless it is there, and gives the place of the first vector."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or made by a run that was killed meanwhile
        vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_items, width))
        vectors.flush()
    return vectors.offset


def _digest_at(file: Any, place: int, n_bytes: int) -> str:
    file.seek(place)
    return hashlib.sha256(file.read(n_bytes)).hexdigest()

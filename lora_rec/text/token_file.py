"""Token ids in an Arrow file: a list of texts is tokenised once, and memory-mapped ever after."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lora_rec.cache import touch
from lora_rec.errors import DataError
from lora_rec.lock import FolderLock
from lora_rec.text.collate import TokenizedTexts, tokenize

logger = logging.getLogger(__name__)

FORMAT = 1
TEXTS_AT_ONCE = 10_000


def open_tokens(
    tokenizer: Any, texts: Sequence[str], *, max_tokens: int, fingerprint: str, root: Path
) -> TokenizedTexts:
    """Tokenises texts, or opens what an earlier call wrote for the same ones.

    The file appears by one rename when it is whole. It is made in blocks, each tokenised on all cores, so
    neither making nor reading it needs memory for all ids.

    Args:
        tokenizer: of transformers.
        texts: any strings.
        max_tokens: see `tokenize`.
        fingerprint: of the tokenizer's files.
        root: folder of all caches.

    Raises:
        DataError: the cache cannot be written.
    """
    digest = hashlib.sha256(f"{FORMAT};{fingerprint};{max_tokens};{len(texts)}".encode())
    digest.update(_settings_of(tokenizer).encode())
    for text in texts:
        part = text.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "little") + part)
    file = root / "tokens" / f"{digest.hexdigest()[:32]}.arrow"
    tokens = _read(file) if file.exists() else None
    if tokens is None:
        try:
            _write(tokenizer, texts, file, max_tokens=max_tokens)
        except OSError as error:
            raise DataError(
                f"{root}: cannot be written ({error.strerror}); free space, or set LORA_REC_CACHE"
            ) from error
        tokens = _read(file)
        if tokens is None:
            raise DataError(f"{file}: does not read as it was written; see to the disk")
    touch(file)
    return tokens


def _read(file: Path) -> TokenizedTexts | None:
    """Opens a file of tokens; None for one that is damaged."""
    try:
        with pa.memory_map(str(file)) as source:
            column = pa.ipc.open_file(source).get_batch(0).column(0)
            column.validate(full=True)
    except (pa.ArrowInvalid, OSError, IndexError) as error:
        logger.warning("%s: damaged (%s); it is made anew", file, str(error).splitlines()[0])
        return None
    return TokenizedTexts(column.values.to_numpy(), column.offsets.to_numpy())


def _settings_of(tokenizer: Any) -> str:
    """Gives what decides a tokenizer's ids, wherever its files say so: settings, rules, added tokens."""
    settings = {
        "side": tokenizer.truncation_side,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "added": {str(token): number for token, number in tokenizer.get_added_vocab().items()},
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        # These two are of the last call, not of the tokenizer.
        settings["rules"] = {n: v for n, v in rules.items() if n not in ("truncation", "padding")}
    return json.dumps(settings, sort_keys=True)


def _write(tokenizer: Any, texts: Sequence[str], file: Path, *, max_tokens: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as scratch, ExitStack() as locks:
        # So that `lora-rec cache` leaves it alone.
        locks.callback(FolderLock(Path(scratch), error=DataError).release)
        flat, lengths = Path(scratch) / "ids", []
        with flat.open("wb") as ids:
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                block = tokenize(tokenizer, texts[start : start + TEXTS_AT_ONCE], max_tokens=max_tokens)
                ids.write(block.ids.tobytes())
                lengths.append(block.lengths)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]))]).astype(np.int64)
        # One batch of all rows, because only the parts of one batch can be mapped as one array.
        with pa.memory_map(str(flat)) if offsets[-1] else pa.BufferReader(b"") as mapped:
            values = pa.Array.from_buffers(pa.int32(), int(offsets[-1]), [None, mapped.read_buffer()])
            rows = pa.LargeListArray.from_arrays(pa.array(offsets), values)
            batch = pa.record_batch([rows], names=["input_ids"])
            with pa.OSFile(f"{scratch}/whole", "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
        with open(f"{scratch}/whole", "rb") as whole:
            os.fsync(whole.fileno())
        os.replace(f"{scratch}/whole", file)

"""Lists for all users through Ray Data: over the cores of one machine, or over those of a cluster.

Each worker is a process that opens the light half of the bundle once, without torch, and gives the lists of
one block of users after the other. The same code runs on Ray's engine inside of this process and on a
cluster that `ray.init(address=...)` or RAY_ADDRESS names. Extra `ray`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lora_rec
from lora_rec import errors
from lora_rec.bundle import check_output, move_folder, read_manifest
from lora_rec.errors import BundleError, DataError, LoraRecError, missing_extra
from lora_rec.hub import find_bundle
from lora_rec.lock import FolderLock, clear
from lora_rec.schema import Manifest

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

MOST_USERS = 256
MOST_SCORES = 64_000_000
"""In one block: a score is kept for each of its users and each item."""


class ListWorker:
    """What a worker holds: a bundle, opened once."""

    def __init__(self, bundle: str, k: int, settings: dict[str, Any], expected: Manifest) -> None:
        self._recommender = lora_rec.load(bundle)
        if self._recommender.manifest != expected:
            raise BundleError(f"{bundle}: replaced while lists were made from it; start again")
        self._settings = settings | {"k": k}

    def __call__(self, histories: pa.Table) -> pa.Table:
        """Gives the lists of one block of users; see `all_users.recommend_block`."""
        from lora_rec.export.all_users import recommend_block

        recommender: Any = self._recommender
        return recommend_block(recommender, histories, **self._settings)


def lists_dataset(
    bundle: str | Path,
    users: Dataset | str | Path,
    *,
    k: int = 10,
    n_workers: int | None = None,
    users_at_once: int | None = None,
    **settings: Any,
) -> Dataset:
    """Gives the lists of all users as a dataset of Ray, computed when it is read or written.

    Args:
        bundle: its folder, which every machine sees under this name, or OWNER/NAME on the Hub.
        users: columns `user_id` and `history`, a list of item ids, oldest first, see
            `all_users.recommend_block`; a dataset of Ray, or a Parquet file or folder.
        k: list length.
        n_workers: processes at most; all CPUs but one, which reads, when left out.
        users_at_once: in one block; 256, fewer with many items, since each has a score for each.
        settings: as `Recommender.rank` takes them, e.g. `diversity`, `exclude`.

    Returns:
        The columns of `all_users.LISTS_SCHEMA`; a user's rows are together, users in any order.

    Raises:
        LoraRecError: Ray is not installed or has fewer than two CPUs.
        DataError: there is no such file of users, or see `all_users.check_settings_of_all`.
        BundleError: there is no bundle, or one of its files was changed; or, as it is computed, the bundle
            was replaced.
    """
    from lora_rec.export.all_users import check_settings_of_all

    check_settings_of_all(k, users_at_once, settings)
    data, n_cpus = _start()
    folder = Path(bundle)
    name = str(folder.resolve()) if folder.is_dir() else str(bundle)
    manifest = read_manifest(find_bundle(name))
    if isinstance(users, str | Path):
        if "://" not in str(users) and not Path(users).exists():
            raise DataError(f"users: there is no file or folder {str(users)!r}; give one in Parquet")
        users = data.read_parquet(str(users)).select_columns(["user_id", "history"])
    at_once = users_at_once or max(1, min(MOST_USERS, MOST_SCORES // max(1, manifest.n_items)))
    dataset: Dataset = users  # type: ignore[assignment]  # the others are read by now
    return dataset.map_batches(
        ListWorker,
        fn_constructor_args=(name, k, settings, manifest),
        batch_format="pyarrow",
        batch_size=at_once,
        compute=data.ActorPoolStrategy(min_size=1, max_size=n_workers or max(1, n_cpus - 1)),
        num_cpus=1,
    )


def recommend_all_ray(
    bundle: str | Path, users: Dataset | str | Path, output: str | Path, *, k: int = 10, **settings: Any
) -> int:
    """Writes the lists of all users as a folder of Parquet files, whole or not at all.

    The folder is one that every machine sees, and so is its parent. For a bucket, write what `lists_dataset`
    gives by Ray's own `write_parquet`, which is not whole until it returns.

    Args:
        bundle: see `lists_dataset`, as for those that follow.
        users: all of them.
        output: a new folder, or one of older lists, which is replaced.
        k: list length.
        settings: `n_workers`, `users_at_once`, and what `Recommender.rank` takes.

    Returns:
        How many rows were written.

    Raises:
        DataError: a history has an unknown id, or another process is writing the output.
        BundleError: the output is something else, or cannot be written.
        LoraRecError: see `lists_dataset`.
    """
    from lora_rec.export.all_users import ABOUT

    folder = check_output(Path(output).resolve(), marker=ABOUT, what="folder of lists")
    lists = lists_dataset(bundle, users, k=k, **settings)
    begun = folder.with_name(f".{folder.name}.begun")
    try:
        lock = FolderLock(begun, error=DataError)
        clear(begun)  # of a run that was killed
    except OSError as error:
        raise BundleError(f"output: {output} cannot be written ({error.strerror}); name another") from error
    written = begun / "lists"  # apart from the lock, of which Ray knows nothing
    try:
        with _errors():
            lists.write_parquet(str(written))
            _, data = _import_ray()
            n_rows = int(data.read_parquet(str(written)).count())
        about = {"bundle": str(bundle), "k": k, "n_rows": n_rows} | settings
        (written / ABOUT).write_text(json.dumps(about, indent=1, default=str), encoding="utf-8")
        move_folder(written, folder)
    finally:
        lock.remove()
    return n_rows


def _import_ray() -> tuple[Any, Any]:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("ray", extra="ray") from error
    return ray, ray.data


def _start() -> tuple[Any, int]:
    """Gives `ray.data` and the CPUs, on an engine of this process where none is running."""
    ray, data = _import_ray()
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    n_cpus = int(ray.cluster_resources().get("CPU", 0))
    if n_cpus < 2:
        raise LoraRecError(
            f"ray: it has {n_cpus} CPU, and one worker and what reads take one each; call"
            " ray.init(num_cpus=2) before, or use recommend_users"
        )
    return data, n_cpus


@contextmanager
def _errors() -> Iterator[None]:
    """Gives the error of a worker instead of Ray's, which holds it as text alone, in the trace."""
    try:
        yield
    except Exception as error:
        found = re.findall(r"^lora_rec\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)
        if not found:
            raise
        name, message = found[-1]  # the one that left the worker; those before are why
        raise getattr(errors, name)(message) from None

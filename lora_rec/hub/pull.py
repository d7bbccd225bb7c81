"""Finds a bundle by its name: a folder here, or a repository on the Hub, pulled into the client's cache.

A copy in the cache counts from the moment that its bundle.json lies there, and that is written last, after
every other file was compared with it. A branch or tag is remembered after that; so whatever breaks off on the
way leaves what was there before. A file that was damaged since is fetched again.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_rec.bundle import MANIFEST, file_digest, replace_file
from lora_rec.errors import BundleError
from lora_rec.hub.client import Unreachable, ask, open_hub
from lora_rec.hub.names import check_listing, is_known
from lora_rec.hub_section import is_hub_name
from lora_rec.schema import Manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

BRANCH = "main"
MAX_MANIFEST = 10_000_000


def find_bundle(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Gives the folder of a bundle; one that is not here is pulled from the Hub.

    Args:
        name: a folder, which always wins, or OWNER/NAME on the Hub.
        revision: branch, tag or commit on the Hub; its main branch when left out.
        token: instead of the one that `hf auth login` or HF_TOKEN left.

    Raises:
        BundleError: there is no such folder and it cannot be a name on the Hub, or what lies there is no
            bundle, or is not as its maker pushed it.
        HubError: the Hub has no such repository or revision, or refuses, or cannot be reached.
    """
    folder = Path(name)
    if folder.exists() or isinstance(name, Path):
        if revision is not None:
            raise BundleError(f"{name}: a folder has no revision {revision!r}; leave it out")
        return folder
    if not is_hub_name(name):
        raise BundleError(
            f"{name}: no bundle here: there is no such folder, and this is no name on the Hub (owner/name);"
            " give the output folder of a run or such a name"
        )
    return pull_bundle(name, revision=revision or BRANCH, token=token)


def pull_bundle(name: str, *, revision: str, token: str | None) -> Path:
    """Gives the folder in the client's cache that holds a whole, checked copy; see `find_bundle`."""
    api = open_hub(token)
    cached = _cached(name, revision)
    if cached is not None and cached.name == revision:
        return cached  # a commit never changes
    try:
        info = ask(lambda: api.model_info(name, revision=revision), api, name=name, revision=revision)
    except Unreachable as error:
        if cached is None:
            said = str(error).removeprefix(f"{name}: ").partition(";")[0]
            raise Unreachable(
                f"{name}: there is no such folder here and no whole copy in the cache of the Hub"
                f" ({said}); check the path, or connect and try again"
            ) from error
        logger.warning("%s: the Hub does not answer; using the copy of %s in the cache", name, cached.name)
        return cached
    commit = str(info.sha)
    is_there = cached is not None and cached.name == commit
    folder = cached if cached is not None and is_there else _cached(name, commit) or _fetch(api, name, commit)
    if commit != revision:
        _remember(folder.parents[1] / "refs" / revision, commit)
    return folder


def _remember(reference: Path, commit: str) -> None:
    """Writes down which commit a branch or tag is, for a call without the Hub."""
    try:
        if reference.is_file() and reference.read_text(encoding="ascii").strip() == commit:
            return
        reference.parent.mkdir(parents=True, exist_ok=True)
        replace_file(reference, commit.encode())
    except (OSError, UnicodeDecodeError, BundleError) as error:
        # The copy is there and was checked; a cache may be read-only.
        logger.warning("%s: cannot be written (%s); it is not found without the Hub", reference, error)


def _cached(name: str, revision: str) -> Path | None:
    """Gives the folder of a whole copy in the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, MANIFEST, revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    # Another client may have stopped halfway, or have been asked for this file alone.
    try:
        digests = dict(json.loads((folder / MANIFEST).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Another client puts any file there: a name that leads out of the folder is not to be looked at, much
    # less deleted as damaged. `check_listing` says what is wrong with it.
    if not all(is_known(str(file)) for file in digests):
        return None
    if not all((folder / file).is_file() for file in digests):
        return None
    damaged = [file for file, digest in digests.items() if file_digest(folder / file) != digest]
    for file in damaged:
        logger.warning("%s: %s in the cache is damaged; fetching it again", name, file)
        _forget(folder / file)
    return None if damaged else folder


def _fetch(api: HfApi, name: str, commit: str) -> Path:
    def call(function: Any, **arguments: Any) -> Any:
        return ask(lambda: function(name, revision=commit, **arguments), api, name=name, revision=commit)

    listed = call(lambda *a, **k: list(api.list_repo_tree(*a, **k)), recursive=True)
    sizes = {entry.path: entry.size for entry in listed if hasattr(entry, "size")}
    names = check_listing(_read_manifest(call, api, name, sizes), sizes, where=name)
    # The client shows its bars, and moves each file into place when it is whole.
    folder = Path(call(api.snapshot_download, allow_patterns=names))
    manifest = _read_manifest(call, api, name, sizes)
    for file in names:
        if file_digest(folder / file) != manifest.files[file]:
            _forget(folder / file)
            raise BundleError(
                f"{name}: {file} is not the file that bundle.json names (its SHA-256 differs); nothing was"
                " loaded; try again, and if it stays so, tell its maker"
            )
    return Path(call(api.hf_hub_download, filename=MANIFEST)).parent


def _read_manifest(call: Any, api: HfApi, name: str, sizes: dict[str, int]) -> Manifest:
    """Reads bundle.json without putting it into the cache, where it would make a copy count."""
    if MANIFEST not in sizes:
        plain = any(re.search(r"(^|/)adapter_config\.json$", path) for path in sizes)
        hint = (
            "it is a plain PEFT adapter: a tower can start from it, see item_tower.start_from in a recipe"
            if plain
            else "give the name of a bundle that lora-rec push made"
        )
        raise BundleError(f"{name}: no bundle on the Hub ({MANIFEST} is missing); {hint}")
    if sizes[MANIFEST] > MAX_MANIFEST:
        raise BundleError(f"{name}: {MANIFEST} has {sizes[MANIFEST]:,} bytes, too many; do not use it")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(call(api.hf_hub_download, filename=MANIFEST, local_dir=scratch))
        text = file.read_bytes()
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{name}: {MANIFEST} is not valid JSON ({error}); tell its maker") from error
    return Manifest.from_json(tree if isinstance(tree, dict) else {}, where=name)


def _forget(file: Path) -> None:
    """Deletes a damaged file from the cache, so that the next try fetches it anew."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)

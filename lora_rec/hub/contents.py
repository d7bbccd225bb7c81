"""What of a bundle goes to the Hub: regular files by an allow-list, without links, tokens, paths or users."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lora_rec.bundle import MANIFEST, file_digest, manifest_text, read_manifest
from lora_rec.errors import BundleError
from lora_rec.hub.names import FRONT_PICTURE, USER_FILES, is_known
from lora_rec.schema import ITEM_TEXTS, ITEM_VECTORS, OF_CATEGORY, PROJECTIONS, TOWERS, Manifest

logger = logging.getLogger(__name__)

_VECTOR_FILES = (
    "item_vectors.npy",
    "similarity_vectors.npy",
    "factor_vectors.npy",
    "popularity.npy",
    # Both hold vectors or weights of every item.
    "head.safetensors",
    "shown.safetensors",
)
_TEXT_SUFFIXES = (".json", ".yaml")
_DATA_FILES = ("items.json", "metrics.json", "diversity.json")
"""Their texts are items' fields and names of categories, such as /books/crime, and no settings."""
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
# A separator of categories may be a slash, and a template may have some between its fields.
_LOCAL_PATH = re.compile(
    r"~[^/\s]*/|/[\w.][^/{}]*(/|$)|([^{}]*[\\/])?\.\.[\\/]|[A-Za-z]:[\\/]|[\\]{2}\w|file:|.*\s/(home|Users|root)/"
)


@dataclass(frozen=True)
class Contents:
    """Files by their path in the repository, each on disk or, where it was changed for the push, as bytes."""

    manifest: Manifest
    files: dict[str, Path | bytes]
    """With bundle.json."""

    def read(self, name: str) -> bytes:
        """Gives a file's content."""
        source = self.files[name]
        return source if isinstance(source, bytes) else source.read_bytes()

    def read_json(self, name: str) -> dict[str, Any]:
        """Gives a JSON file's content, empty where the bundle has no such file."""
        return json.loads(self.read(name)) if name in self.files else {}


def gather(
    bundle: str | Path,
    *,
    towers: Sequence[str] = TOWERS,
    item_texts: bool = True,
    item_vectors: bool = True,
    include: Sequence[str] = (),
    token: str | None = None,
) -> Contents:
    """Gives what a push sends.

    Args:
        bundle: its folder.
        towers: those of `schema.TOWERS` that go out.
        item_texts: false leaves the items' texts out, and the figures for each category that they name;
            their ids stay.
        item_vectors: false leaves out all that holds a vector or weights of every item, the head with it.
        include: of `names.USER_FILES`, what is sent although it tells of single users.
        token: must be in no file, whatever it looks like.

    Raises:
        BundleError: the folder is no bundle, holds a link, or a file that is about to be sent holds a token
            or a path of this machine; or there is nothing to leave out or to include of that name.
    """
    folder = Path(bundle).resolve()
    manifest = read_manifest(folder)
    _refuse_links(folder, bundle)
    _check_wishes(manifest, folder, towers=towers, include=include)
    left_out = [ITEM_TEXTS] * (not item_texts) + [ITEM_VECTORS] * (not item_vectors)
    files = _choose(folder, manifest, towers=towers, item_vectors=item_vectors, include=include)
    if not item_texts:
        ids = json.loads((folder / "items.json").read_text(encoding="utf-8"))["ids"]
        files["items.json"] = json.dumps({"ids": ids, "fields": {}}, ensure_ascii=False).encode()
        if "metrics.json" in files:
            files["metrics.json"] = _without_categories(folder / "metrics.json")
    gone = {name: None for name in TOWERS if name not in towers}
    if gone:
        files[PROJECTIONS] = _projections_of(folder / PROJECTIONS, towers)
    sent = replace(
        manifest,
        files={name: _digest(source) for name, source in sorted(files.items())},
        left_out=sorted({*manifest.left_out, *left_out}),
        **gone,  # type: ignore[arg-type]
    )
    # The same bundle is the same file, byte for byte, so that it is not sent again.
    same = sent == manifest
    files[MANIFEST] = folder / MANIFEST if same else manifest_text(sent).encode()
    contents = Contents(sent, dict(sorted(files.items())))
    _refuse_secrets(contents, bundle, token)
    return contents


def _refuse_links(folder: Path, bundle: str | Path) -> None:
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(root, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                place = os.path.relpath(os.path.join(root, name), folder)
                raise BundleError(
                    f"{bundle}: {place} is a link or no regular file, and a push follows none; put a copy"
                    " in its place (cp -rL copies a whole folder so)"
                )


def _check_wishes(manifest: Manifest, folder: Path, *, towers: Sequence[str], include: Sequence[str]) -> None:
    if not towers:
        raise BundleError(f"push: no tower is left; name one of {', '.join(manifest.towers)}")
    for name in towers:
        if name not in TOWERS:
            raise BundleError(f"push: there is no tower {name!r}; name one of {', '.join(manifest.towers)}")
        if set(towers) != set(TOWERS):
            manifest.tower(name)
    for name in include:
        if name not in USER_FILES or not (folder / name).is_file():
            there = [n for n in USER_FILES if (folder / n).is_file()]
            raise BundleError(
                f"push: there is no {name!r} to include; the bundle has {', '.join(there) or 'no user data'}"
            )


def _choose(
    folder: Path, manifest: Manifest, *, towers: Sequence[str], item_vectors: bool, include: Sequence[str]
) -> dict[str, Path | bytes]:
    wanted = {*manifest.files, *include, *([FRONT_PICTURE] if (folder / FRONT_PICTURE).is_file() else [])}
    files: dict[str, Path | bytes] = {}
    for name in sorted(wanted):
        if name in USER_FILES and name not in include:
            logger.warning("%s: not sent, because it tells of single users; include it by name", name)
        elif not is_known(name):
            logger.warning("%s: not sent, because no bundle holds such a file", name)
        elif name.split("/")[0] in set(TOWERS) - set(towers) or (
            not item_vectors and (name in _VECTOR_FILES or name in USER_FILES)
        ):
            continue
        else:
            files[name] = folder / name
    return files


def _without_categories(file: Path) -> Path | bytes:
    metrics = json.loads(file.read_text(encoding="utf-8"))
    slices = metrics.get("slices", [])
    kept = [part for part in slices if part["group"] != OF_CATEGORY]
    return file if kept == slices else (json.dumps(metrics | {"slices": kept}, indent=2) + "\n").encode()


def _projections_of(file: Path, towers: Sequence[str]) -> bytes:
    from safetensors.numpy import load_file, save

    return save({key: value for key, value in load_file(file).items() if key.split(".")[0] in towers})


def _refuse_secrets(contents: Contents, bundle: str | Path, token: str | None) -> None:
    """Refuses a push of text that holds a token or a path of this machine."""
    for name in contents.files:
        raw = contents.read(name)
        if (token and token.encode() in raw) or (name.endswith(_TEXT_SUFFIXES) and _TOKEN.search(raw)):
            raise BundleError(
                f"{bundle}: {name} holds a token of the Hub; nothing was sent; take it out, and revoke it if"
                " others can read that file"
            )
        if name in _DATA_FILES or not name.endswith(_TEXT_SUFFIXES):
            continue
        tree = json.loads(raw) if name.endswith(".json") else yaml.safe_load(raw)
        for key, value in _texts(tree):
            if _LOCAL_PATH.match(value):
                raise BundleError(
                    f"{bundle}: {name} holds a path of this machine ({key}: {value!r}); nothing was sent;"
                    " run the recipe again, which cuts such paths"
                )


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields every text in a tree with its key."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _texts(value, f"{key}.{name}".lstrip("."))
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, key)


def _digest(source: Path | bytes) -> str:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_digest(source)

"""Which files a bundle may hold, here and on the Hub: a list of what is allowed, not of what is not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lora_rec.bundle import MANIFEST
from lora_rec.errors import BundleError
from lora_rec.schema import Manifest

CARD = "README.md"
FRONT_PICTURE = "pictures/diversity.png"
USER_FILES = ("user_vectors.npy", "user_ids.json")
"""What tells of single users; pushed only when it is asked for by name."""
_KNOWN = re.compile(
    r"(bundle|metrics|diversity|items)\.json"
    r"|recipe\.yaml"
    r"|(projections|head|shown)\.safetensors"
    r"|(item|similarity|factor)_vectors\.npy|popularity\.npy"
    r"|(user|item)_tower/(adapter_config\.json|(adapter_model|bottleneck|full)\.safetensors)"
    r"|pictures/[A-Za-z0-9_-]+\.png"
)
# On the Hub beside a bundle; nothing of it is downloaded.
_HARMLESS = re.compile(r"README\.md|\.gitattributes|\.gitignore|(LICENSE|LICENCE|NOTICE)(\.(md|txt))?")


def is_known(name: str) -> bool:
    """Says whether a bundle has a file of this name.

    >>> is_known("item_tower/adapter_model.safetensors"), is_known("item_tower/adapter_model.bin")
    (True, False)
    """
    return name in USER_FILES or _KNOWN.fullmatch(name) is not None


def is_harmless(name: str) -> bool:
    """Says whether a file may lie beside a bundle on the Hub."""
    return _HARMLESS.fullmatch(name) is not None


def check_listing(manifest: Manifest, listed: Iterable[str], *, where: str) -> list[str]:
    """Gives the files to fetch, all but bundle.json, or says which should not be there or are missing.

    Args:
        manifest: as the repository has it.
        listed: every file in the repository.
        where: named in errors.

    Raises:
        BundleError: bundle.json names a file that no bundle has or that is missing, or the repository holds
            one that bundle.json does not name.
    """
    there = set(listed)
    foreign = sorted(name for name in manifest.files if name == MANIFEST or not is_known(name))
    if foreign:
        raise BundleError(f"{where}: bundle.json names {foreign[0]!r}, which no bundle holds; do not use it")
    extra = sorted(n for n in there - set(manifest.files) - {MANIFEST} if not is_harmless(n))
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise BundleError(
            f"{where}: holds files that bundle.json does not name ({extra[0]}{more}); nothing was loaded;"
            " ask its maker to delete them"
        )
    missing = sorted(set(manifest.files) - there)
    if missing:
        raise BundleError(f"{where}: {missing[0]} is missing on the Hub; ask its maker to push it again")
    return sorted(manifest.files)

"""The registry of publishers, and the one function that reads or downloads."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

from lora_rec.cache import cache_folder, touch
from lora_rec.data.publishers import amazon, lastfm, mind, movielens, online_retail
from lora_rec.data.publishers.download import fetch_archive
from lora_rec.data.publishers.published import Published, Publisher
from lora_rec.errors import DataError, did_you_mean

logger = logging.getLogger(__name__)

PUBLISHERS: dict[str, Publisher] = {
    module.PUBLISHER.name: module.PUBLISHER for module in (movielens, lastfm, amazon, online_retail, mind)
}


def load_published(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    variant: str | None = None,
    url: str | None = None,
    digest: str | None = None,
) -> Published:
    """Reads a published data set from a folder, or downloads it into the cache first.

    Downloads lie in `datasets/NAME/VARIANT` under LORA_REC_CACHE or the user's cache folder. The terms are
    logged once. A variant whose publisher gives no checksum is pinned on its first download. A folder that is
    there is read as it is, whatever the address; delete it to download again.

    Args:
        name: a key of `PUBLISHERS`.
        folder: holds the publisher's files; nothing is downloaded.
        variant: which archive to download, e.g. `1m` for movielens; the registry's first when left out. For
            amazon, a category of the 2023 release, e.g. `All_Beauty`, loaded from the Hub.
        url: takes the archive from another address, e.g. a mirror.
        digest: MD5 or SHA-256 of the archive at `url`; that of the registry when left out.

    Raises:
        DataError: an unknown name or variant, files that cannot be read, or a download that failed; the
            message says where to download by hand.
    """
    publisher = PUBLISHERS.get(name)
    if publisher is None:
        hint = did_you_mean(name, PUBLISHERS) or f"known: {', '.join(PUBLISHERS)}"
        raise DataError(f"publisher: no {name!r}; {hint}")
    if folder is not None:
        if variant or url or digest:
            raise DataError(
                f"{name}: variant, url and digest are for downloads and have no effect with a folder; "
                "leave them out"
            )
        _log_terms(publisher)
        return publisher.read(Path(folder).expanduser())
    if name == "amazon" and variant is not None and url is None:
        _log_terms(publisher)
        return amazon.load_amazon_2023(variant)
    by_hand = f"download it by hand from {publisher.home} and pass the folder with {publisher.files}"
    variant = variant or next(iter(publisher.downloads), "archive")
    known = publisher.downloads.get(variant)
    if known is None and url is None:
        if not publisher.downloads:
            raise DataError(f"{name}: there is no archive to download; {by_hand}, or name a variant")
        hint = did_you_mean(variant, publisher.downloads) or f"known: {', '.join(publisher.downloads)}"
        raise DataError(f"{name}.variant: no {variant!r}; {hint}")
    _log_terms(publisher)
    place = cache_folder() / "datasets" / name / variant
    address = url or (known.url if known else "")
    expected = digest or (known.digest if known else None)
    archive = fetch_archive(address, place, digest=expected, by_hand=by_hand)
    touch(place.parent)
    return publisher.read(archive)


@cache
def _log_terms(publisher: Publisher) -> None:
    """Logs the terms; once in a process, because the cache remembers the call."""
    logger.warning("%s: %s See %s", publisher.name, publisher.licence, publisher.home)

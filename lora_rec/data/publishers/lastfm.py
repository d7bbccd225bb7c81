"""Last.fm of HetRec 2011: play counts, tags and friends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.filters import ratings_as_strengths
from lora_rec.data.publishers.published import Download, Published, Publisher
from lora_rec.data.publishers.tables import check_known, check_once, find_folder, read_columns
from lora_rec.data.sources import load_dataset
from lora_rec.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

N_TAGS = 5


def read_lastfm(folder: Path) -> Published:
    """Reads HetRec 2011 Last.fm 2k.

    Fields: title (the artist's name) and tags (its most frequent tags, up to 5, most frequent first). What a
    user has tagged who plays the artist is not counted: it would tell of plays that a split withholds. Plays
    are the ratings. There are no times: each user's interactions stand from least to most played, so that
    what is cut from a long history matters least; split at random.

    Args:
        folder: holds `artists.dat`, `user_artists.dat`, `user_taggedartists.dat`, `tags.dat` and
            `user_friends.dat`.

    Raises:
        DataError: a file is missing or has a bad line.
    """
    root = find_folder(folder, files=["user_artists.dat"], needs=PUBLISHER.files)
    names: dict[str, type] = {"item": int, "title": str, "url": str, "picture": str}
    artists = read_columns(root / "artists.dat", names, separator="\t", header=True)
    path = root / "user_artists.dat"
    plays = read_columns(path, {"user": int, "item": int, "plays": float}, separator="\t", header=True)
    check_once(root / "artists.dat", artists["item"], header=True)
    check_known(path, plays["item"], artists["item"], what="artist that artists.dat lacks", header=True)
    dataset = load_dataset(
        plays.sort_values("plays", kind="stable"),
        artists.assign(tags=_read_tags(root, artists, plays)),
        user_column="user",
        item_column="item",
        time_column=None,
        rating_column="plays",
        text_columns=("title", "tags"),
    )
    friends, notes = _read_friends(root / "user_friends.dat", dataset.user_ids)
    dataset = ratings_as_strengths(dataset)
    return Published("lastfm", dataset, friends=friends, notes=notes)


def _read_tags(root: Path, artists: pd.DataFrame, plays: pd.DataFrame) -> list[str]:
    """Writes the tags that most users give an artist whom they do not play, those of one frequency by id."""
    names = dict.fromkeys(("user", "item", "tag", "day", "month", "year"), int)
    path = root / "user_taggedartists.dat"
    given = read_columns(path, names, separator="\t", header=True)
    columns: dict[str, type] = {"tag": int, "name": str}
    tags = read_columns(root / "tags.dat", columns, separator="\t", header=True, encoding="latin-1")
    check_once(root / "tags.dat", tags["tag"], header=True)
    check_known(path, given["tag"], tags["tag"], what="tag that tags.dat lacks", header=True)
    given = given.merge(plays, on=["user", "item"], how="left")
    counts = given[given["plays"].isna()].groupby(["item", "tag"]).size().reset_index(name="n")
    counts = counts.sort_values(["item", "n", "tag"], ascending=[True, False, True])
    top = counts.groupby("item").head(N_TAGS).merge(tags, on="tag")  # merge keeps the order of the left
    texts = top.groupby("item")["name"].agg(", ".join)
    return artists["item"].map(texts).fillna("").tolist()


def _read_friends(path: Path, user_ids: NDArray[np.str_]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Reads friendships as pairs of internal user ids; one that is written in both directions counts once."""
    pairs = read_columns(path, {"user": int, "friend": int}, separator="\t", header=True).to_numpy()
    order = np.argsort(user_ids)
    names = pairs.astype(np.str_)
    places = np.minimum(np.searchsorted(user_ids, names, sorter=order), len(order) - 1)
    internal = order[places]
    known = (user_ids[internal] == names).all(axis=1)
    own = internal[:, 0] == internal[:, 1]
    if (own & known).any():
        line = int(np.argmax(own & known)) + 2
        raise DataError(f"{path}, line {line}: a user who is their own friend; drop the line")
    edges = np.unique(np.sort(internal[known], axis=1), axis=0).astype(np.int64)
    notes = (
        (f"{int((~known).sum()):,} friend rows of users without plays left out",) if not known.all() else ()
    )
    return edges.reshape(-1, 2), notes


PUBLISHER = Publisher(
    name="lastfm",
    domain="music",
    home="https://grouplens.org/datasets/hetrec-2011/",
    licence="HetRec 2011 Last.fm: non-commercial use; cite Cantador, Brusilovsky and Kuflik, RecSys 2011, and"
    " Last.fm as the source.",
    read=read_lastfm,
    files="artists.dat, user_artists.dat, user_taggedartists.dat, tags.dat and user_friends.dat",
    downloads={
        "2k": Download("https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip"),
    },
)

"""MovieLens in the four formats it comes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_rec.data.publishers.published import Download, Published, Publisher
from lora_rec.data.publishers.tables import (
    check_known,
    check_once,
    find_folder,
    import_pandas,
    need_file,
    read_columns,
)
from lora_rec.data.sources import load_dataset
from lora_rec.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_RATINGS = {"user": int, "item": int, "rating": float, "time": int}
# The 19 flags at the end of a line of u.item, in the order that the set's README gives.
_GENRES_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
_NO_GENRES = ("(no genres listed)", "unknown")


def read_movielens(folder: Path) -> Published:
    """Reads MovieLens: 100K, 1M, 10M, 20M and later releases, or RecBole's atomic files.

    The format is told from the files. Fields: title (without the year, "Matrix, The" as it stands), year, and
    genres (comma separated); "" where a film has none.

    Args:
        folder: holds `u.data` and `u.item`; `ratings.dat` and `movies.dat`; `ratings.csv` and `movies.csv`;
            or `NAME.inter` and `NAME.item`.

    Raises:
        DataError: a file is missing or has a bad line.
    """
    root = find_folder(
        folder, files=["*.inter", "u.data", "ratings.dat", "ratings.csv"], needs=PUBLISHER.files
    )
    if any(root.glob("*.inter")):
        return _read_recbole(root)
    if (root / "u.data").is_file():
        ratings = read_columns(root / "u.data", _RATINGS, separator="\t")
        return _publish(
            "100K", ratings, _read_films_100k(root / "u.item"), (root / "u.data", False), "u.item"
        )
    if (root / "ratings.dat").is_file():
        ratings = read_columns(root / "ratings.dat", _RATINGS, separator="::")
        films = read_columns(
            root / "movies.dat",
            {"item": int, "title": str, "genres": str},
            separator="::",
            encoding=_encoding(root / "movies.dat"),
        )
        return _publish("dat", ratings, films, (root / "ratings.dat", False), "movies.dat")
    ratings = read_columns(root / "ratings.csv", _RATINGS, separator=",", header=True)
    columns: dict[str, type] = {"item": int, "title": str, "genres": str}
    films = read_columns(root / "movies.csv", columns, separator=",", header=True, quoted=True)
    return _publish("csv", ratings, films, (root / "ratings.csv", True), "movies.csv")


def _encoding(path: Path) -> str:
    """Gives UTF-8 where a file is that (10M), else latin-1 (1M)."""
    try:
        need_file(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _read_films_100k(path: Path) -> pd.DataFrame:
    flags = [f"flag {genre}" for genre in _GENRES_100K]
    names = ["item", "title", "released", "video", "url", *flags]
    columns = dict.fromkeys(names, str) | {"item": int} | dict.fromkeys(flags, int)
    films = read_columns(path, columns, separator="|", encoding="latin-1")
    marks = films[flags].to_numpy() > 0
    genres = ["|".join(np.array(_GENRES_100K)[row]) for row in marks]
    return films[["item", "title"]].assign(genres=genres)


def _read_recbole(root: Path) -> Published:
    """Reads atomic files: the first line names each column and its type, `name:type`."""
    path = sorted(root.glob("*.inter"))[0]
    item_path = path.with_suffix(".item")
    ratings = _read_atomic(
        path, {"user_id": "user", "item_id": "item", "rating": "rating", "timestamp": "time"}
    )
    names = {"item_id": "item", "movie_title": "title", "release_year": "year"}
    films = _read_atomic(item_path, names | dict.fromkeys(("class", "genre", "genres"), "genres"))
    genres = films["genres"].where(films["genres"].isin(_NO_GENRES), films["genres"].str.replace(" ", "|"))
    return _publish("RecBole", ratings, films.assign(genres=genres), (path, True), item_path.name)


def _read_atomic(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """Reads the named columns of an atomic file under their new names."""
    with open(need_file(path), encoding="utf-8-sig") as file:
        heads = [head.partition(":") for head in file.readline().rstrip("\r\n").split("\t")]
    found = [name for name, _, _ in heads]
    wrong = [name for name, _, kind in heads if kind not in ("token", "token_seq", "float", "float_seq")]
    missing = sorted(set(names.values()) - {names.get(name) for name in found})
    if wrong or missing:
        what = f"{wrong} have no type" if wrong else f"no column for {', '.join(missing)}"
        raise DataError(f"{path}, line 1: {what}; give RecBole's header, name:type, tab separated")
    kinds = {name: float if kind == "float" else str for name, _, kind in heads}
    table = read_columns(path, kinds, separator="\t", header=True)
    return table[[name for name in found if name in names]].rename(columns=names)


def _publish(
    kind: str, ratings: pd.DataFrame, films: pd.DataFrame, source: tuple[Path, bool], item_file: str
) -> Published:
    """Cleans titles and genres, and numbers users and items."""
    pd = import_pandas()
    path, header = source
    check_once(path.with_name(item_file), films["item"], header=header)
    what = f"movie that {item_file} lacks"
    check_known(path, ratings["item"], films["item"], what=what, header=header)
    films["title"] = films["title"].str.strip()
    if "year" not in films:
        # "Babylon 5" has no year and "Fury (2007-)" no single one: both stay as they are.
        parts = films["title"].str.extract(r"^(.*\S)\s*\((\d{4})\)$")
        films["year"] = parts[1].fillna("")
        films["title"] = parts[0].fillna(films["title"])
    films["year"] = films["year"].where(films["year"].str.fullmatch(r"\d{4}"), "")
    genres = films["genres"].where(~films["genres"].isin(_NO_GENRES), "").str.replace("|", ", ", regex=False)
    dataset = load_dataset(
        pd.DataFrame(ratings).astype({"time": np.int64}),
        films.assign(genres=genres),
        user_column="user",
        item_column="item",
        time_column="time",
        rating_column="rating",
        text_columns=("title", "year", "genres"),
    )
    return Published(f"movielens ({kind})", dataset)


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
PUBLISHER = Publisher(
    name="movielens",
    domain="video",
    home="https://grouplens.org/datasets/movielens/",
    licence="GroupLens: for research; no redistribution without permission, no commercial use without"
    " permission; cite Harper and Konstan, ACM TiiS 5(4), 2015.",
    read=read_movielens,
    files="u.data and u.item, ratings.dat and movies.dat, ratings.csv and movies.csv, or NAME.inter and"
    " NAME.item",
    downloads={
        "100k": Download(f"{_GROUPLENS}/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"),
        "1m": Download(f"{_GROUPLENS}/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),
        "20m": Download(f"{_GROUPLENS}/ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3"),
        "25m": Download(f"{_GROUPLENS}/ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada"),
        # These two change with every release, so no checksum can stand here.
        "latest": Download(f"{_GROUPLENS}/ml-latest.zip"),
        "latest-small": Download(f"{_GROUPLENS}/ml-latest-small.zip"),
    },
)

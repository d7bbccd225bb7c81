"""MIND: news impressions of Microsoft News."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.columns import read_ids
from lora_rec.data.dataset import Dataset
from lora_rec.data.impressions import Impressions
from lora_rec.data.lists import Lists
from lora_rec.data.publishers.published import Download, Published, Publisher
from lora_rec.data.publishers.tables import (
    FIX,
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

_BEHAVIOURS: dict[str, type] = {"impression": str, "user": str, "time": str, "history": str, "shown": str}
_NEWS_COLUMNS = {
    3: ("item", "category", "title"),
    8: ("item", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"),
}
_TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"


def read_mind(folder: Path) -> Published:
    """Reads MIND, large or small, one part (train or dev) or a sample of it.

    Fields: title, category, and subcategory and abstract where `news.tsv` has its eight columns. The data set
    holds the clicks, at the time of their impression, over all news; histories carry no times and stay in the
    impressions. Times are read as UTC.

    Args:
        folder: holds `behaviors.tsv` and `news.tsv`.

    Raises:
        DataError: a file is missing or has a bad line.
    """
    root = find_folder(folder, files=["behaviors.tsv"], needs=PUBLISHER.files)
    news, path = _read_news(root / "news.tsv"), root / "behaviors.tsv"
    table = read_columns(path, _BEHAVIOURS, separator="\t")
    times = _read_times(path, table["time"])
    histories, _ = _read_lists(path, table["history"], news["item"])
    candidates, marks = _read_lists(path, table["shown"], news["item"], marked=True)
    rows = np.repeat(np.arange(len(table)), candidates.counts)
    clicks = marks == "1"
    dataset = _clicks(table["user"], rows[clicks], candidates.values[clicks], times, news)
    names = read_ids(table["user"])
    user_rows = _places(names.names.astype(object), dataset.user_ids)[names.codes]
    if (user_rows < 0).any():
        line = int(np.argmax(user_rows < 0)) + 1
        raise DataError(f"{path}, line {line}: a user without any click; drop the users who clicked nothing")
    shown = Impressions(user_rows, times, histories, candidates, clicks)
    empty = int((histories.counts == 0).sum())
    notes = (f"{empty:,} of {len(shown):,} impressions have no history",) if empty else ()
    return Published("mind", dataset, impressions=shown, notes=notes)


def _read_news(path: Path) -> pd.DataFrame:
    with open(need_file(path), encoding="utf-8-sig") as file:
        n_columns = file.readline().count("\t") + 1
    if n_columns not in _NEWS_COLUMNS:
        raise DataError(
            f"{path}, line 1: {n_columns} columns; give the official eight, or id, category and title"
        )
    columns: dict[str, type] = dict.fromkeys(_NEWS_COLUMNS[n_columns], str)
    news = read_columns(path, columns, separator="\t")
    check_once(path, news["item"], header=False)
    return news


def _read_times(path: Path, cells: pd.Series) -> NDArray[np.int64]:
    pd = import_pandas()
    times = pd.to_datetime(cells, format=_TIME_FORMAT, errors="coerce")
    if times.isna().any():
        row = int(np.argmax(times.isna()))
        raise DataError(
            f"{path}, line {row + 1}: time {cells[row]!r} does not read as 11/12/2019 2:14:46 PM; {FIX}"
        )
    return times.to_numpy("datetime64[s]").astype(np.int64)


def _read_lists(
    path: Path, cells: pd.Series, known: pd.Series, *, marked: bool = False
) -> tuple[Lists, NDArray[np.str_]]:
    """Reads lists of news ids as internal ids; with `marked`, also what follows the last hyphen of each."""
    pd = import_pandas()
    parts = [cell.split() for cell in cells.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    codes, entries = pd.factorize(np.array(list(chain.from_iterable(parts)), object))
    names, marks = pd.Series(entries, dtype=object), np.empty(0, np.str_)
    if marked:
        split = names.str.extract(r"^(.+)-([01])$")
        names, marks = split[0].fillna(""), split[1].fillna("").to_numpy(np.str_)[codes]
    items = pd.Index(known).get_indexer(pd.Index(names))[codes].astype(np.int64)
    bad = items < 0
    if bad.any():
        place = int(np.argmax(bad))
        line = int(np.searchsorted(offsets, place, side="right"))
        text = entries[codes[place]]
        what = "is no id followed by -0 or -1" if marked and not marks[place] else "is not in news.tsv"
        raise DataError(f"{path}, line {line}: {text!r} {what}; use both files of one release, whole")
    return Lists(items, offsets), marks


def _clicks(
    users: pd.Series,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    times: NDArray[np.int64],
    news: pd.DataFrame,
) -> Dataset:
    pd = import_pandas()
    columns = {"user": users.to_numpy()[rows], "item": news["item"].to_numpy()[items], "time": times[rows]}
    fields = [name for name in ("title", "category", "subcategory", "abstract") if name in news]
    table = pd.DataFrame(columns).drop_duplicates()
    return load_dataset(
        table, news, user_column="user", item_column="item", time_column="time", text_columns=fields
    )


def _places(names: NDArray[np.object_], ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Gives the internal id of each name, -1 where there is none."""
    pd = import_pandas()
    return np.asarray(pd.Index(ids.astype(object)).get_indexer(pd.Index(names)), np.int64)


PUBLISHER = Publisher(
    name="mind",
    domain="news",
    home="https://msnews.github.io",
    licence="Microsoft Research Licence Terms: research only; cite Wu et al., ACL 2020.",
    read=read_mind,
    files="behaviors.tsv and news.tsv",
    # The first address of the publisher answers no more; this copy may ask for an account.
    downloads={
        "small": Download(
            "https://huggingface.co/datasets/Recommenders/MIND/resolve/main/MINDsmall_train.zip"
        ),
        "large": Download(
            "https://huggingface.co/datasets/Recommenders/MIND/resolve/main/MINDlarge_train.zip"
        ),
    },
)

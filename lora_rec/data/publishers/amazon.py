"""Amazon reviews: the 5-core sequences of 2014, and the release of 2023 through `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_rec.data.columns import read_texts
from lora_rec.data.publishers.published import Published, Publisher
from lora_rec.data.publishers.tables import FIX, check_once, find_folder, import_pandas, need_file
from lora_rec.data.sources import load_dataset
from lora_rec.errors import DataError, missing_extra

if TYPE_CHECKING:
    import datasets

HUB_ID = "McAuley-Lab/Amazon-Reviews-2023"


def read_amazon(folder: Path) -> Published:
    """Reads 5-core sequences of the 2014 release.

    The order in a line is the order in time; there are no time stamps. Users are numbered by the length of
    their id, then by the id; items as in `item_text.txt`. The only field is `title`.

    Args:
        folder: holds `user_sequence.txt` (a user, then items, oldest first, parted by spaces) and
            `item_text.txt` (an item, then its words).

    Raises:
        DataError: a file is missing or has a bad line.
    """
    pd = import_pandas()
    root = find_folder(folder, files=["user_sequence.txt"], needs=PUBLISHER.files)
    path, item_path = root / "user_sequence.txt", root / "item_text.txt"
    things = [line.partition(" ") for line in _read_lines(item_path)]
    items = pd.DataFrame({"item": [t[0] for t in things], "title": [t[2].strip() for t in things]})
    sequences = [line.split() for line in _read_lines(path)]
    counts = np.array([len(sequence) - 1 for sequence in sequences])
    if (counts < 1).any():
        line = int(np.argmax(counts < 1)) + 1
        raise DataError(f"{path}, line {line}: a user without items; {FIX}")
    users = [sequence[0] for sequence in sequences]
    check_once(path, users, header=False)
    check_once(item_path, items["item"], header=False)
    taken = pd.Series([item for sequence in sequences for item in sequence[1:]])
    unknown = ~np.asarray(taken.isin(items["item"]))
    if unknown.any():
        place = int(np.argmax(unknown))
        line = int(np.repeat(np.arange(len(users)), counts)[place]) + 1
        raise DataError(
            f"{path}, line {line}: {taken[place]} is an item that {item_path.name} lacks; "
            "use both files of one release"
        )
    table = pd.DataFrame({"user": np.repeat(users, counts), "item": taken})
    dataset = load_dataset(table, items, user_column="user", item_column="item", time_column=None)
    return Published("amazon (2014 sequences)", dataset)


def _read_lines(path: Path) -> list[str]:
    try:
        # Not splitlines: that would also split at characters that a title may hold.
        lines = need_file(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; download the file again") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line[0] == " ":
            raise DataError(f"{path}, line {number}: does not begin with an id: {line[:60]!r}; {FIX}")
    return lines


def load_amazon_2023(category: str, *, core: int = 5, revision: str | None = None) -> Published:
    """Loads a category of the 2023 release from the Hub, through `datasets` and its cache.

    Args:
        category: as the publisher spells it, e.g. `All_Beauty`.
        core: 5 for the publisher's 5-core (every user and item has five ratings), 0 for all reviews.
        revision: branch, tag or commit of the repository on the Hub.

    Raises:
        DataError: `core` is neither, or the Hub does not give the files.
        LoraRecError: `datasets` is not installed.
    """
    if core not in (0, 5):
        raise DataError(f"amazon.core: {core}; give 5 for the publisher's 5-core, 0 for all reviews")
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", extra="train") from error
    root = f"hf://datasets/{HUB_ID}{f'@{revision}' if revision else ''}"
    # The repository's own configs are a script, which `datasets` 4 and later do not run; these are its files.
    rated = f"{root}/benchmark/5core/rating_only/{category}.csv"
    reviewed = f"{root}/raw/review_categories/{category}.jsonl"
    described = f"{root}/raw_meta_{category}/*.parquet"
    try:
        reviews = datasets.load_dataset(
            "csv" if core else "json", data_files=rated if core else reviewed, split="train"
        )
        meta = datasets.load_dataset("parquet", data_files=described, split="train")
    except Exception as error:  # the Hub's client raises what its transport raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"amazon: the Hub gave no {category!r} of {HUB_ID} ({reason}); check the category and "
            f"the network, or give tables from {PUBLISHER.home} to read_amazon_2023"
        ) from error
    return read_amazon_2023(reviews, meta, category=category)


def read_amazon_2023(reviews: datasets.Dataset, meta: datasets.Dataset, *, category: str = "") -> Published:
    """Reads tables of the 2023 release.

    The item is the `parent_asin`. Fields: title, store and categories (comma separated); "" where the meta
    table has none, which is so for every item that it lacks. The catalogue is the items that have a review.
    Times are unix seconds (the files have milliseconds).

    Args:
        reviews: with the columns user_id, parent_asin, rating and timestamp.
        meta: with parent_asin and title; store and categories are read where they are there.
        category: for the name.

    Raises:
        DataError: a column is missing, or cells cannot be read; all problems in one message.
    """
    pd = import_pandas()
    for name, table, needed in (
        ("reviews", reviews, ("user_id", "parent_asin", "rating", "timestamp")),
        ("meta", meta, ("parent_asin", "title")),
    ):
        missing = [column for column in needed if column not in table.column_names]
        if missing:
            raise DataError(
                f"amazon.{name}: no column {', '.join(missing)} (columns: {', '.join(table.column_names)}); "
                "give the tables of the 2023 release"
            )
    rows = _to_pandas(reviews, ["user_id", "parent_asin", "rating", "timestamp"])
    rows["timestamp"] = rows["timestamp"].astype("int64") // 1000
    fields = [name for name in ("title", "store", "categories") if name in meta.column_names]
    known = _to_pandas(meta, ["parent_asin", *fields]).drop_duplicates("parent_asin")
    items = pd.DataFrame({"parent_asin": rows["parent_asin"].drop_duplicates().sort_values()})
    n_unknown = int((~items["parent_asin"].isin(known["parent_asin"])).sum())
    items = items.merge(known, on="parent_asin", how="left")
    items = items.assign(**{name: read_texts(items[name]) for name in fields})
    n_rows = len(rows)
    rows = rows.drop_duplicates(["user_id", "parent_asin", "timestamp"])
    dataset = load_dataset(
        rows, items, user_column="user_id", item_column="parent_asin", rating_column="rating"
    )
    notes = []
    if n_rows > len(rows):
        notes.append(f"{n_rows - len(rows):,} reviews repeat a user, an item and a time; each is kept once")
    if n_unknown:
        notes.append(f"{n_unknown:,} items are not in the meta table; their texts are empty")
    return Published(f"amazon (2023{f', {category}' if category else ''})", dataset, notes=tuple(notes))


def _to_pandas(table: Any, columns: list[str]) -> Any:
    return table.with_format(None).select_columns(columns).to_pandas()


PUBLISHER = Publisher(
    name="amazon",
    domain="e-commerce",
    home="https://amazon-reviews-2023.github.io",
    licence="Amazon reviews (McAuley Lab, UCSD): research only; cite McAuley et al., SIGIR 2015 (2014"
    " release) or Hou et al., arXiv:2403.03952 (2023 release).",
    read=read_amazon,
    files="user_sequence.txt and item_text.txt",
    downloads={},  # 2014: no archive holds the sequences; 2023: load_amazon_2023
)

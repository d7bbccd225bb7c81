"""What a tower reads without labels: item texts and histories of a data set, or a corpus."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.columns import read_texts
from lora_rec.data.dataset import Dataset, Split
from lora_rec.data.lists import Lists
from lora_rec.data.publishers import load_published
from lora_rec.data.sources import read_table
from lora_rec.data.splits import find_quantiles, split_at_time
from lora_rec.data_section import DataSection
from lora_rec.errors import DataError, did_you_mean
from lora_rec.pipeline.data import load_data, split_data
from lora_rec.pretrain_recipe import CorpusSection, PretrainRecipe
from lora_rec.text.templates import render_histories, render_items

logger = logging.getLogger(__name__)

MOST_HELD_OUT = 2000
SHOWN_SOURCES = ("mind",)
BLOCK = 16
"""Rows of a corpus without groups that count as one sequence."""


@dataclass(frozen=True, eq=False)
class Domain:
    """Texts with their fields, and which follow each other."""

    fields: Mapping[str, Sequence[str]]
    """Field to one text per item, or per row of the corpus."""
    template: str
    history_template: str
    where: str
    """The template's name in errors."""
    sequences: Lists
    """Histories, or neighbouring rows of a corpus, as numbers of items; each has two at least."""
    are_histories: bool
    """Whether a sequence is somebody's, or of one document: not just neighbouring rows."""
    held_out: float
    seed: int

    @cached_property
    def items(self) -> NDArray[np.int64]:
        """One item for each distinct text."""
        texts = np.array(render_items(self.template, self.fields, where=self.where), dtype=object)
        return np.sort(np.unique(texts, return_index=True)[1]).astype(np.int64)

    @cached_property
    def item_parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in `items` to learn from, and those that are held out."""
        return self._part(len(self.items), "texts")

    @cached_property
    def sequence_parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sequences to learn from, and those that are held out."""
        return self._part(len(self.sequences), "histories" if self.are_histories else "sequences")

    def _part(self, n: int, what: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        n_held_out = min(MOST_HELD_OUT, max(1, round(self.held_out * n)))
        if n < 2 or n_held_out >= n:
            raise DataError(
                f"texts: {n} {what} are too few to learn from some and hold out others; give more"
            )
        order = np.random.default_rng(self.seed).permutation(n)
        return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])

    def item_texts(self, *, without: str | None = None) -> list[str]:
        """Gives the text of each of `items`, as if a field were empty where that is asked for."""
        fields = {name: [texts[i] for i in self.items] for name, texts in self.fields.items()}
        if without is not None:
            fields[without] = [""] * len(self.items)
        return render_items(self.template, fields, where=self.where)

    def history_item_texts(self) -> list[str]:
        """Gives how each item is written in a history."""
        return render_items(self.history_template, self.fields, where="text.history_item_template")

    def history_texts(self, part: NDArray[np.int64], *, length: int, newest_first: bool) -> list[str]:
        """Cuts histories into stretches and writes each."""
        stretches = [
            self.sequences[int(row)][begin : begin + length]
            for row in part
            for begin in range(0, len(self.sequences[int(row)]), length)
        ]
        return render_histories(
            stretches, self.history_item_texts(), length=length, newest_first=newest_first
        )

    @cached_property
    def fingerprint(self) -> str:
        """Tells the same fields, templates and sequences again."""
        digest = hashlib.sha256()
        # Templates say which of the fields is the text; of a corpus nothing else does.
        for template in (self.template, self.history_template):
            digest.update(f"{len(template)}:{template}".encode())
        for name, texts in self.fields.items():
            digest.update(f"{len(name)}:{name}".encode())
            for text in texts:
                digest.update(f"{len(text)}:{text}".encode())
        for array in (self.sequences.values, self.sequences.offsets):
            digest.update(f"{len(array)};".encode() + array.astype("<i8").tobytes())
        return digest.hexdigest()


def read_domain(recipe: PretrainRecipe) -> Domain:
    """Reads the recipe's data or corpus.

    Raises:
        DataError: it cannot be read, or holds nothing to learn from.
    """
    section = recipe.train
    if recipe.corpus is not None:
        fields, sequences = _read_corpus(recipe.corpus)
        template = "{" + recipe.corpus.text_column + "}"
        grouped = len(sequences) > 0
        if not grouped:
            n = len(fields[recipe.corpus.text_column])
            sequences = [np.arange(begin, min(begin + BLOCK, n)) for begin in range(0, n, BLOCK)]
        return Domain(
            fields=fields,
            template=template,
            history_template=template,
            where="corpus.text_column",
            sequences=_of_two(sequences),
            are_histories=grouped,
            held_out=section.held_out,
            seed=section.seed,
        )
    assert recipe.data is not None  # the recipe has checked that there is one of the two
    dataset = load_data(recipe.data)
    histories = cut_domain(recipe.data, dataset).train_histories()
    if recipe.text.is_social:
        logger.info("text.friends_length, text.n_shared_tags: not read here, where there are no labels")
    return Domain(
        fields=dataset.item_fields,
        template=recipe.text.item_template,
        history_template=recipe.text.history_item_template,
        where="text.item_template",
        sequences=_of_two(histories),
        are_histories=True,
        held_out=section.held_out,
        seed=section.seed,
    )


def cut_domain(section: DataSection, dataset: Dataset) -> Split:
    """Splits as the run that goes on from here; where that may be either of two, at the earlier moments.

    Quantiles of the times of shown lists, which `recipes/shown_lists.py` cuts at, are not those of clicks.
    """
    split = split_data(section, dataset)
    if section.split != "time" or section.source not in SHOWN_SOURCES:
        return split
    published = load_published(section.source, section.root, variant=section.variant)
    if published.impressions is None:
        return split
    shares = {"validation": section.validation_quantile, "test": section.test_quantile}
    times = (dataset.times, published.impressions.times)
    moments = [find_quantiles(found, **shares) for found in times if found is not None]
    validation_from, test_from = np.min(moments, axis=0).tolist()
    return split_at_time(dataset, validation_from=validation_from, test_from=test_from)


def _of_two(sequences: Lists | Sequence[NDArray[np.int64]]) -> Lists:
    return Lists.from_arrays(sequence for sequence in sequences if len(sequence) > 1)


def _read_corpus(section: CorpusSection) -> tuple[dict[str, Sequence[str]], list[NDArray[np.int64]]]:
    """Gives the columns, and the rows of each group; no groups where nothing says what they are."""
    if Path(section.path).suffix.lower() == ".txt":
        return _read_lines(section)
    table = read_table(section.path, name="corpus")
    for setting in ("text_column", "group_column"):
        column = getattr(section, setting)
        if column is not None and column not in table.columns:
            hint = did_you_mean(column, map(str, table.columns))
            hint = hint or f"the columns are: {', '.join(map(str, table.columns))}"
            raise DataError(f"corpus.{setting}: there is no column {column!r}; {hint}")
    texts = read_texts(table[section.text_column])
    kept = np.flatnonzero([bool(text) for text in texts])
    if not len(kept):
        raise DataError(f"corpus: {section.path} has no text in {section.text_column!r}; name another column")
    columns = {str(name): read_texts(table[name]) for name in table.columns}
    fields: dict[str, Sequence[str]] = {name: [all_[i] for i in kept] for name, all_ in columns.items()}
    if section.group_column is None:
        return fields, []
    names = np.array(fields[section.group_column], dtype=object)
    codes = np.unique(names, return_inverse=True)[1]
    alone = names == ""
    if alone.any():
        logger.warning(
            "corpus.group_column: %d of %d rows name no group; each is one of its own",
            alone.sum(),
            len(names),
        )
        codes[alone] = len(names) + np.arange(alone.sum())
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    return fields, sorted(groups, key=lambda rows: int(rows[0]))


def _read_lines(section: CorpusSection) -> tuple[dict[str, Sequence[str]], list[NDArray[np.int64]]]:
    if (section.text_column, section.group_column) != ("text", None):
        raise DataError("corpus.text_column, corpus.group_column: a text file has no columns; leave them out")
    try:
        # Not splitlines(), which also cuts at marks that texts hold, such as U+2028.
        lines = Path(section.path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"corpus: {section.path} cannot be read ({error}); give a text file in UTF-8"
        ) from error
    texts: list[str] = []
    groups: list[list[int]] = [[]]
    for line in map(str.strip, lines):
        if line:
            groups[-1].append(len(texts))
            texts.append(line)
        elif groups[-1]:
            groups.append([])
    if not texts:
        raise DataError(f"corpus: {section.path} has no line with a text; give another file")
    full = [np.array(group, dtype=np.int64) for group in groups if group]
    return {"text": texts}, full if len(full) > 1 else []

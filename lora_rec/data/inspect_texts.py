"""What the texts of a data set are like, and what of them usually goes wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.inspect import MANY
from lora_rec.data.validate import N_EXAMPLES, DataProblem

SAMPLE = 5_000  # texts that are looked into
FEW = 0.01  # a share of the items that is no accident
_PIECE = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_MARKUP = re.compile(
    r"</?(?:a|b|br|center|div|em|font|h\d|hr|i|img|li|ol|p|pre|script|span|strong|style|su[bp]|table|tbody|t[dhr]|u|ul)"
    r"\b[^<>]*>|&(?:[a-z]{2,8}|#x?\w{1,5});",
    re.IGNORECASE,
)
_TWICE = re.compile("[\u00c3\u00c2][\u0080-\u00bf\u2018-\u203a\u20ac\u2122]|\u00e2\u20ac|[\u0080-\u009f]")
"""UTF-8 read as another code, or the other way round: \u00c3\u00b3 for \u00f3."""
NO_TEXT = frozenset("null none nan n/a na - -- ? unknown undefined".split())
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


@dataclass(frozen=True)
class TextStatistics:
    """How long texts are."""

    n: int
    n_empty: int
    words: float
    """Mean."""
    tokens: float
    """Mean, estimated."""
    most_tokens: int
    """Of nineteen texts in twenty no more, estimated."""

    def __str__(self) -> str:
        return (
            f"{self.words:.1f} words, about {self.tokens:.0f} tokens on average, {self.most_tokens} in the"
            f" longest twentieth; {self.n_empty / max(self.n, 1):.1%} are empty"
        )


def estimate_tokens(texts: Sequence[str]) -> NDArray[np.int64]:
    """Estimates each text's tokens without a tokenizer, within a fifth of MiniLM's and SmolLM2's on English.

    A word of up to six Latin letters is one token, a longer one one for every five letters; so are three
    digits, a sign, and a letter of any other script. Two come for the ends.

    >>> estimate_tokens(["Toy Story (1995)", "活着"]).tolist()
    [8, 4]
    """
    return np.array([2 + sum(map(_pieces, _PIECE.findall(text))) for text in texts], np.int64)


def _pieces(word: str) -> int:
    if not word.isascii():
        return len(word)
    if word.isdigit():
        return -(-len(word) // 3)
    return 1 if len(word) <= 6 else -(-len(word) // 5)


def summarize_texts(texts: Sequence[str]) -> TextStatistics:
    """Measures texts; of many, a sample spread over all of them."""
    chosen = sample_texts(texts)
    full = [text for text in chosen if text] or [""]
    tokens = estimate_tokens(full)
    return TextStatistics(
        n=len(texts),
        n_empty=sum(not text for text in texts),
        words=float(np.mean([len(text.split()) for text in full])),
        tokens=float(tokens.mean()),
        most_tokens=int(np.quantile(tokens, 0.95)),
    )


def sample_texts(texts: Sequence[str]) -> list[str]:
    """Gives at most `SAMPLE` texts, evenly spread."""
    if len(texts) <= SAMPLE:
        return list(texts)
    return [texts[i] for i in np.linspace(0, len(texts) - 1, SAMPLE).astype(int)]


def share_not_latin(texts: Sequence[str]) -> float:
    """Gives the share of the letters that are in another script than Latin.

    >>> share_not_latin(["Élan", "война"])
    0.5555555555555556
    """
    letters = [letter for text in sample_texts(texts) for letter in text if letter.isalpha()]
    # Latin with all its accents ends at U+024F, but for Vietnamese.
    other = sum(not (letter < "\u0250" or "\u1e00" <= letter <= "\u1eff") for letter in letters)
    return other / max(len(letters), 1)


def find_item_text_warnings(
    texts: Sequence[str], *, item_ids: Sequence[str], fields: Mapping[str, Sequence[str]], max_tokens: int
) -> list[DataProblem]:
    """Finds what makes the items' texts say less than they should.

    Args:
        texts: (N), as the item tower reads them, "" where an item has none.
        item_ids: (N), for examples.
        fields: those that the template names, (N) each; one that many items lack is named.
        max_tokens: at which the item tower cuts.
    """
    n = len(texts)
    found = []

    def warn(what: str, fix: str, rows: Sequence[int]) -> None:
        examples = tuple(f"{item_ids[row]}: {_short(texts[row])}" for row in rows[:N_EXAMPLES])
        found.append(DataProblem("item texts", what, fix, len(rows), examples))

    empty = [row for row, text in enumerate(texts) if not text]
    if len(empty) > FEW * n:
        warn(
            f"{len(empty):,} of {n:,} are empty", "fill in the columns, or name others in the template", empty
        )
    for name, values in fields.items():
        missing = sum(not value for value in values)
        if missing > MANY * n and missing > len(empty):
            what = f"missing for {missing:,} of {n:,} items, whose texts say less"
            found.append(DataProblem(name, what, "fill it in, or leave it out of the template", missing))
        written = [value for value in values if is_written_list(value)]
        if len(written) > MANY * n:
            what = f"{len(written):,} of {n:,} cells are lists as Python writes them"
            fix = "write what they hold, e.g. with ', '.join, before the run"
            found.append(DataProblem(name, what, fix, len(written), tuple(map(_short, written[:1]))))
    found += _repeat_warnings(texts, item_ids)
    garbled = [row for row, text in enumerate(texts) if _TWICE.search(text)]
    if len(garbled) > FEW * n:
        what = f"{len(garbled):,} of {n:,} look like UTF-8 that was read as Latin"
        warn(what, "read the file as UTF-8, or mend the texts, e.g. with the package ftfy", garbled)
    marked = [row for row, text in enumerate(texts) if _MARKUP.search(text)]
    if len(marked) > FEW * n:
        what = f"{len(marked):,} of {n:,} hold HTML tags or entities"
        warn(what, "take the tags out and apply html.unescape before the run", marked)
    return found + find_cut_warnings(texts, where="item texts", section="item_tower", max_tokens=max_tokens)


def is_written_list(cell: str) -> bool:
    """Says whether a cell is a list or a set as Python writes it, which pandas leaves in a CSV file.

    >>> is_written_list("['Action', 'Drama']"), is_written_list("[REC]"), is_written_list("Action")
    (True, False, False)
    """
    return cell[:2] in ("['", '["', "{'", '{"') and cell[-1] in "]}"


def _repeat_warnings(texts: Sequence[str], item_ids: Sequence[str]) -> list[DataProblem]:
    """Finds items that no model can tell apart by their texts."""
    counts = Counter(text for text in texts if text)
    shared = sum(count for count in counts.values() if count > 1)
    if shared <= FEW * len(texts):
        return []
    text, most = counts.most_common(1)[0]
    same = [str(item_ids[row]) for row, own in enumerate(texts) if own == text][:N_EXAMPLES]
    what = f"{shared:,} of {len(texts):,} items share their text with another, {most:,} have {_short(text)}"
    fix = "join items that are one thing, or add a column to the template that tells them apart"
    if text.strip().lower() in NO_TEXT:
        fix = "empty those cells: it is read as a word, and stands for none"
    return [DataProblem("item texts", what, fix, shared, tuple(f"item {name}" for name in same))]


def find_cut_warnings(
    texts: Sequence[str], *, where: str, section: str, max_tokens: int
) -> list[DataProblem]:
    """Finds texts of which a tower does not read the end.

    Args:
        texts: as the tower reads them.
        where: what the message calls them.
        section: the tower's section in the recipe.
        max_tokens: at which it cuts.
    """
    tokens = estimate_tokens(sample_texts(texts))
    cut = float((tokens > max_tokens).mean()) if len(tokens) else 0.0
    if cut <= MANY:
        return []
    longest = f"the longest has about {int(tokens.max())}"
    what = f"{cut:.0%} are longer than {max_tokens} tokens and lose their end, {longest}"
    fix = f"raise {section}.max_tokens, or shorten what the template or history_length gives"
    return [DataProblem(where, what, fix, int(cut * len(texts)))]


def find_script_warnings(texts: Sequence[str], *, english: Mapping[str, str]) -> list[DataProblem]:
    """Finds texts in a script that an English backbone has hardly seen.

    Args:
        texts: of items.
        english: tower to backbone, of those that read English alone.
    """
    share = share_not_latin(texts)
    if share <= MANY or not english:
        return []
    towers = " and ".join(f"{tower} ({backbone})" for tower, backbone in english.items())
    what = f"{share:.0%} of the letters are not Latin, but {towers} learned from English"
    fix = f"choose a multilingual backbone, such as user_tower.backbone={MULTILINGUAL}"
    return [DataProblem("item texts", what, fix, len(texts))]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")

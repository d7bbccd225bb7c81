"""Words replaced by synonyms, from WordNet through nltk."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from lora_rec.errors import LoraRecError
from lora_rec.text.augment import generator_of

Lookup = Callable[[str], Sequence[str]]
"""Gives the synonyms of a word in lower case; none where it is not known."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def open_wordnet() -> Lookup:
    """Opens WordNet as nltk has it, from its data folders (`NLTK_DATA`); nothing is downloaded.

    A word's synonyms are those of its most frequent sense, as whatever part of speech; proper names are none.

    Raises:
        LoraRecError: nltk is not installed, or WordNet is in none of its folders.
    """
    try:
        import nltk
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError as error:
        raise LoraRecError(
            "regularisation.synonyms: needs nltk; run: pip install 'lora-rec[synonyms]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it speaks one language alone
            reader = WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)
    except (LookupError, OSError) as error:
        raise LoraRecError(
            "regularisation.synonyms: nltk does not find WordNet; run: python -m nltk.downloader wordnet, and"
            " unzip it where it lies, or set NLTK_DATA to the folder that holds corpora/wordnet"
        ) from error

    def frequency(sense: Any, word: str) -> int:
        return max((lemma.count() for lemma in sense.lemmas() if lemma.name().lower() == word), default=0)

    def lookup(word: str) -> list[str]:
        # WordNet orders senses within a part of speech, nouns first, of which "white" is a person.
        senses = reader.synsets(word)
        names = max(senses, key=lambda sense: frequency(sense, word)).lemma_names() if senses else []
        names = [name for name in names if name == name.lower() != word]  # no proper names
        return [name.replace("_", " ") for name in names]

    return lookup


def swap_words(text: str, *, share: float, seed: int, lookup: Lookup) -> str:
    """Replaces words by synonyms by chance. The same text and seed give the same words.

    Args:
        text: words of three letters or more may be replaced.
        share: chance of each that has a synonym.
        seed: of the choice, together with the text.
        lookup: see `open_wordnet`.

    >>> swap_words("Film of a car", share=1.0, seed=0, lookup={"film": ["movie"], "car": ["auto"]}.get)
    'Movie of a auto'
    """
    generator = generator_of(text, seed)

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        if generator.random() >= share:
            return word
        found = lookup(word.lower()) or [word]
        chosen = found[int(generator.integers(len(found)))]
        return chosen[:1].upper() + chosen[1:] if word[:1].isupper() else chosen

    return _WORD.sub(swap, text)

"""Training texts with their variants, from the recipe's section `regularisation`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.cache import cache_folder
from lora_rec.objectives_section import RegularisationSection
from lora_rec.text.augment import VariedSource, drop_words
from lora_rec.text.collate import BatchSource
from lora_rec.text.synonyms import open_wordnet, swap_words
from lora_rec.text.translate import translate_there_and_back

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_varied(
    section: RegularisationSection,
    accelerator: Accelerator,
    source: BatchSource,
    texts: Sequence[str],
    trained: NDArray[np.int64],
    *,
    open_texts: Callable[[Sequence[str]], BatchSource],
) -> VariedSource:
    """Opens texts with their variants, or as they are where none are asked for.

    Args:
        section: of the recipe.
        accelerator: the main process translates.
        source: of the texts themselves.
        texts: (n)
        trained: which of them are trained on; the others have no variants.
        open_texts: tokenises texts and opens their cache.
    """
    if not section.has_variants:
        return VariedSource.plain(source)
    chosen = [texts[number] for number in trained]
    translated: Sequence[str] | None = None
    if section.translate_there is not None and section.translate_back is not None:
        with accelerator.main_process_first():
            translated = translate_there_and_back(
                chosen, there=section.translate_there, back=section.translate_back, root=cache_folder()
            )
    variants = make_variants(section, chosen)
    if translated is not None:
        variants.append(translated)
    places = np.tile(np.arange(len(texts)), (len(variants) + 1, 1))
    for number in range(len(variants)):
        places[number + 1, trained] = len(texts) + number * len(trained) + np.arange(len(trained))
    together = [*texts, *(text for variant in variants for text in variant)]
    return VariedSource(open_texts(together), places)


def make_variants(section: RegularisationSection, texts: Sequence[str]) -> list[Sequence[str]]:
    """Gives lists of variants with words left out and replaced, each with one text for each given one.

    Raises:
        LoraRecError: synonyms are asked for, and WordNet is not there.
    """
    found: list[Sequence[str]] = []
    if section.word_dropout == section.synonyms == 0:
        return found
    lookup = open_wordnet() if section.synonyms > 0 else None
    for seed in range(section.word_variants):
        variant = list(texts)
        if section.word_dropout > 0:
            variant = [drop_words(text, share=section.word_dropout, seed=seed) for text in variant]
        if lookup is not None:
            variant = [swap_words(t, share=section.synonyms, seed=seed, lookup=lookup) for t in variant]
        found.append(variant)
    return found

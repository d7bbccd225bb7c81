"""Training texts with their variants, from the recipe's section `regularisation`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_rec.cache import cache_folder
from lora_rec.objectives_section import RegularisationSection
from lora_rec.text.augment import VariedSource, make_variants
from lora_rec.text.collate import BatchSource
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
    variants = make_variants(
        chosen,
        word_dropout=section.word_dropout,
        word_variants=section.word_variants,
        translated=translated,
    )
    places = np.tile(np.arange(len(texts)), (len(variants) + 1, 1))
    for number in range(len(variants)):
        places[number + 1, trained] = len(texts) + number * len(trained) + np.arange(len(trained))
    together = [*texts, *(text for variant in variants for text in variant)]
    return VariedSource(open_texts(together), places)

"""Who watched what, without a label: what few_labels.py learns of films before anybody says what is liked.

A user's taste is what the films that were liked have and those that were disliked have not: the match of the
film asked for with the former less that with the latter. `watched` takes it from both towers, after they
learned the next film of histories; `co_occurrence` from the counts of those same histories, which is what the
towers could have learned at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.lists import Lists
from lora_rec.objectives_section import ObjectivesSection
from lora_rec.recipe import Recipe

if TYPE_CHECKING:
    from few_labels import Questions

_Floats = NDArray[np.float64]
EPOCHS = 6
EXAMPLES, TARGETS = 2, 4
"""Points of each history, and films after each that are learned."""


def watched(
    dataset: Any,
    asked: Questions,
    known: Lists,
    recipe: Recipe,
    *,
    judge: Callable[[_Floats], float],
) -> _Floats:
    """Trains both towers on histories; gives (P,), how much of each film is what its user liked.

    Args:
        dataset: MovieLens.
        asked: P questions.
        known: what each user watched whose films may be learned from.
        recipe: towers and training.
        judge: says how good such scores are on validation users, to choose the epoch by.
    """
    import torch
    from accelerate import Accelerator

    from lora_rec.data.examples import draw_examples
    from lora_rec.pipeline.data import Texts, number_texts
    from lora_rec.pipeline.objectives import prepare_material
    from lora_rec.pipeline.ranking import LinearChoice, fit_linear
    from lora_rec.pipeline.sources import open_sources
    from lora_rec.pipeline.towers import Vectors, build_towers, solve_and_encode, teach, train_adapters
    from lora_rec.text.templates import render_histories, render_items

    length = recipe.text.history_length
    training = replace(recipe.train, epochs=EPOCHS, batch_size=64, token_budget=4096)
    recipe = replace(recipe, train=training, objectives=ObjectivesSection())
    accelerator = Accelerator()
    torch.manual_seed(training.seed)
    examples = draw_examples(
        known, per_user=EXAMPLES, history_length=length, n_targets=TARGETS, seed=training.seed
    )
    titles = list(dataset.item_fields["title"])
    kinds = (asked.history_likes, ~asked.history_likes)
    parts = [list(examples.histories)]
    parts += [[past[of] for past, of in zip(asked.histories, kind, strict=True)] for kind in kinds]
    histories = [text for part in parts for text in render_histories(part, titles, length=length)]
    distinct, numbers = number_texts(histories)
    of_examples, *of_kinds = np.split(numbers, np.cumsum([len(part) for part in parts[:-1]]))
    none = np.empty(0, np.int64)
    items = render_items(recipe.text.item_template, dataset.item_fields)
    texts = Texts(items, distinct, of_examples, none, none)
    teacher = teach(
        recipe, fit_linear(known, LinearChoice(200.0, 0.9, 0.0), n_items=dataset.n_items), examples
    )
    material = prepare_material(recipe, dataset, examples, texts, teacher, known=known, log=None)
    model = build_towers(recipe, device=accelerator.device)
    sources = open_sources(recipe, model, texts, accelerator)

    def taste(vectors: Vectors) -> _Floats:
        films = vectors.items[asked.items]
        found = [
            np.where(kind.any(axis=1), np.einsum("pd,pd->p", vectors.users[rows], films), 0.0)
            for rows, kind in zip(of_kinds, kinds, strict=True)
        ]
        return np.asarray(found[0] - found[1], np.float64)

    start = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    train_adapters(
        recipe,
        model,
        sources,
        texts,
        material,
        accelerator,
        start=start,
        start_validation=judge(taste(start)),
        validate=lambda vectors: judge(taste(vectors)),
    )
    return taste(solve_and_encode(recipe, model, sources, texts, teacher, accelerator))


def co_occurrence(asked: Questions, known: Lists, *, n_items: int) -> _Floats:
    """Gives (P,) as `watched`, by positive pointwise mutual information (Church and Hanks 1990)."""
    taken = np.zeros((len(known), n_items))
    taken[np.repeat(np.arange(len(known)), known.counts), known.values] = 1
    counts, popularity = taken.T @ taken, taken.sum(axis=0) + 1
    expected = popularity[:, None] * popularity / len(known)
    information = np.maximum(0, np.log((counts + 0.5) / expected))
    np.fill_diagonal(information, 0)
    match = information[asked.histories, asked.items[:, None]]

    def mean(of: NDArray[np.bool_]) -> _Floats:
        return np.asarray((match * of).sum(axis=1) / (of.sum(axis=1) + 1))

    return mean(asked.history_likes) - mean(~asked.history_likes)

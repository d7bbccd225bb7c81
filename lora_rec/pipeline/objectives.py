"""What the towers learn from, with the labels that the recipe's objectives ask for."""

from __future__ import annotations

import numpy as np

from lora_rec.data.dataset import Dataset, Log
from lora_rec.data.examples import Examples
from lora_rec.data.impressions import Impressions
from lora_rec.data.labels import check_likes, likes, mean_ratings, read_item_labels
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError, RecipeError
from lora_rec.objectives_section import ObjectivesSection
from lora_rec.pipeline.data import Texts
from lora_rec.recipe import Recipe
from lora_rec.train.objectives import Material, ShownLists
from lora_rec.train.projections import Teacher


def prepare_material(
    recipe: Recipe,
    dataset: Dataset,
    examples: Examples,
    texts: Texts,
    teacher: Teacher,
    *,
    known: Lists,
    log: Log | None,
    shown: ShownLists | None = None,
) -> Material:
    """Gathers all that the objectives of a recipe learn from.

    Args:
        recipe: its section `objectives` is read.
        dataset: the items' fields are labels.
        examples: users are rows of `known`.
        texts: which is that of each example.
        teacher: of the objective `alignment`.
        known: what each user took in training.
        log: the same interactions; their ratings are labels. None where there is no such log.
        shown: lists of the objective `listwise`.

    Raises:
        RecipeError: an objective has nothing to learn from.
        DataError: labels are missing or tell nothing apart.
    """
    section = recipe.objectives
    active = section.active
    if "listwise" in active and shown is None:
        raise RecipeError(
            "objectives.listwise: learns from lists that were shown, which these data do not have; run"
            " recipes/shown_lists.py on a log of shown lists, or use softmax or bpr"
        )
    liked = None
    rated = None if log is None or log.ratings is None else log
    if "interest" in active:
        if rated is not None:
            liked = likes(
                rated,
                examples.users,
                examples.targets,
                n_items=dataset.n_items,
                liked_from=section.liked_from,
            )
            check_likes(liked, liked_from=section.liked_from, what="to learn from")
        elif recipe.train.extra_items == 0:
            raise RecipeError(
                "train.extra_items: 0, and without ratings objectives.interest draws what users do not like"
                " there; raise it"
            )
        elif section.liked_from != ObjectivesSection().liked_from:
            raise RecipeError(
                "objectives.liked_from: the data has no ratings, so it has no effect; leave it out"
            )
    labels = []
    if "item_features" in active:
        ratings = None if rated is None else mean_ratings(rated, n_items=dataset.n_items)
        labels = read_item_labels(
            dataset.item_fields,
            {
                "class_fields": section.class_fields,
                "tag_fields": section.tag_fields,
                "band_fields": section.band_fields,
            },
            mean_ratings=ratings,
        )
    return Material(
        examples,
        texts.example_texts,
        known,
        np.bincount(known.values, minlength=len(texts.items)),
        teacher,
        liked=liked,
        item_labels=labels,
        shown=shown,
    )


def telling_lists(impressions: Impressions) -> Impressions:
    """Gives the lists that can be learned from: after a history, with a click and an item without.

    Raises:
        DataError: there is none.
    """
    wanted = impressions.tells & (impressions.histories.counts > 0)
    if not wanted.any():
        raise DataError(
            f"objectives.listwise: none of {len(impressions):,} lists in training has a history, a click and"
            " an item without; leave it out"
        )
    return impressions.take(np.flatnonzero(wanted))

"""Texts of a run, ready to be asked for as batches: tokenised once, the frozen layers computed once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.cache import cache_folder
from lora_rec.pipeline.data import Texts
from lora_rec.pipeline.variants import open_varied
from lora_rec.recipe import Recipe
from lora_rec.text.augment import VariedSource
from lora_rec.text.collate import BatchSource, TokenBatch, TokenizedTexts, plan_micro_batches
from lora_rec.text.token_file import open_tokens
from lora_rec.tower_section import TowerSection
from lora_rec.towers.adapters import start_from_inputs
from lora_rec.towers.two_tower import Tower, TwoTower
from lora_rec.train.prefix_cache import open_prefix_cache

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

START_TEXTS = 512  # of which EVA takes the leading directions


@dataclass(frozen=True, eq=False)
class Sources:
    """Both towers' texts, ready to be asked for as batches."""

    users: BatchSource
    items: BatchSource
    items_for_user_tower: BatchSource
    varied_users: VariedSource
    """The users' texts as training reads them."""
    varied_items: VariedSource


def open_sources(recipe: Recipe, model: TwoTower, texts: Texts, accelerator: Accelerator) -> Sources:
    """Tokenises all texts once and, where asked for, runs the frozen layers once.

    An adapter that starts from its inputs (EVA) gets its start here.
    """
    budget = recipe.train.token_budget

    def opened(what: str, tower: Tower, section: TowerSection, part: Sequence[str]) -> BatchSource:
        info = tower.backbone_info
        with accelerator.main_process_first():
            tokens = open_tokens(
                info.tokenizer,
                part,
                max_tokens=section.max_tokens,
                fingerprint=info.fingerprint,
                root=cache_folder(),
            )
        cached = recipe.train.prefix_cache
        return open_source(tower, tokens, accelerator, what=what, prefix_cache=cached, token_budget=budget)

    user_side, item_side = (model.user_tower, recipe.user_tower), (model.item_tower, recipe.item_tower)
    users, items = opened("histories", *user_side, texts.users), opened("items", *item_side, texts.items)
    vary = partial(open_varied, recipe.regularisation, accelerator)
    sources = Sources(
        users,
        items,
        opened("items in the user tower", *user_side, texts.items),
        vary(users, texts.users, texts.trained, open_texts=partial(opened, "varied histories", *user_side)),
        vary(
            items,
            texts.items,
            np.arange(len(texts.items)),
            open_texts=partial(opened, "varied items", *item_side),
        ),
    )
    # Of histories those that are trained on alone: a later one tells what validation asks for.
    seen = ((model.user_tower, users, texts.trained), (model.item_tower, items, np.arange(len(texts.items))))
    for tower, source, known in seen:
        start_adapter(tower, source, known, seed=recipe.train.seed, token_budget=budget)
    return sources


def open_source(
    tower: Tower,
    tokens: TokenizedTexts,
    accelerator: Accelerator | None = None,
    *,
    what: str,
    prefix_cache: bool,
    token_budget: int,
) -> BatchSource:
    """Gives texts as a tower is to read them: from the prefix cache where there is one to be had.

    Args:
        tower: that reads them.
        tokens: of the texts.
        accelerator: of accelerate; None is a process alone.
        what: the texts are, for the log.
        prefix_cache: whether one is wanted.
        token_budget: padded tokens in one micro-batch.

    Raises:
        TowerError: a text is longer than the backbone has positions for.
    """
    # Before anything is computed: the longest texts come last.
    tower.check_length(int(tokens.lengths.max(initial=0)), where=what)
    if tower.first_trained_layer == 0:
        logger.info("%s: no cache, because the adapter acts from the first layer on", what)
        return tokens
    if not prefix_cache:
        return tokens
    return open_prefix_cache(
        tower,
        tokens,
        root=cache_folder(),
        token_budget=token_budget,
        accelerator=accelerator,
        progress=lambda batches: tqdm(
            batches,
            desc=f"frozen layers, {what}",
            disable=accelerator is not None and not accelerator.is_main_process,
        ),
    )


def start_adapter(
    tower: Tower, source: BatchSource, known: NDArray[np.int64], *, seed: int, token_budget: int
) -> None:
    """Gives an adapter that starts from its inputs (EVA) its start, from a sample of the texts `known`."""

    def batches() -> Iterator[tuple[TokenBatch, torch.Tensor]]:
        sample = np.random.default_rng(seed).permutation(known)[:START_TEXTS]
        for rows in plan_micro_batches(source.lengths[sample], token_budget=token_budget):
            batch = source.batch(sample[rows]).to(tower.device)
            yield batch, batch.attention_mask

    start_from_inputs(tower.adapter, tower.encode_states, batches())

"""From the recipe's tower and training sections to trained towers and their vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.adapter_settings import FULL_PRECISION_ONLY
from lora_rec.cache import cache_folder
from lora_rec.data.dataset import Split
from lora_rec.data.examples import Examples
from lora_rec.data.lists import Lists
from lora_rec.pipeline.data import Texts
from lora_rec.pipeline.judge import JUDGED_K, mean_ndcg
from lora_rec.pipeline.starts import find_start, settings_of
from lora_rec.rank.linear import LinearModel, centre
from lora_rec.rank.search import top_k
from lora_rec.recipe import Recipe
from lora_rec.text.collate import BatchSource, TokenBatch, TokenizedTexts, plan_micro_batches
from lora_rec.text.token_file import open_tokens
from lora_rec.tower_section import TowerSection
from lora_rec.towers.adapters import (
    attach,
    attach_saved,
    start_from_inputs,
    start_from_weights,
)
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.two_tower import Tower, TwoTower, project
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.loop import TrainingResult, train_two_tower
from lora_rec.train.prefix_cache import open_prefix_cache
from lora_rec.train.projections import Teacher, build_teacher, solve_projection
from lora_rec.train.shared import shared_states

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


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings of one state of the towers, all unit length and D wide."""

    items: NDArray[np.float32]
    """(N, D)"""
    users: NDArray[np.float32]
    """(T, D), one per distinct history text."""


def build_tower(
    section: TowerSection,
    *,
    width: int | None,
    where: str,
    device: str | torch.device | None = None,
    lm_head: bool = False,
) -> Tower:
    """Loads a backbone and attaches its adapter; see `load_backbone` for the device and the head."""
    start = find_start(section)
    settings = section.adapter_settings()
    auto_full = section.precision == "auto" and settings.adapter in FULL_PRECISION_ONLY
    backbone = load_backbone(
        section.backbone,
        revision=section.revision,
        precision="fp32" if auto_full else section.precision,
        compute=section.compute,
        device=device,
        lm_head=lm_head,
        where=where,
    )
    settings = settings_of(
        section,
        base_model_id=backbone.source.base_model_id,
        where=where,
        precision=backbone.precision.name if section.precision == "auto" else None,
    )
    layers = section.trained_layers
    if start is None:
        adapter = attach(backbone.model, settings, trained_layers=layers, where=where)
    else:
        adapter = attach_saved(backbone.model, start, settings, trained_layers=layers, where=where)
    start_from_weights(
        adapter,
        lambda: load_backbone(section.backbone, revision=section.revision, device="cpu", where=where).model,
    )
    tower = Tower(backbone, adapter, pooling=section.pooling, width=width)
    return tower.to(next(backbone.model.parameters()).device)


def build_towers(recipe: Recipe, *, device: str | torch.device | None = None) -> TwoTower:
    """Builds both towers; seed the generators before, so that every process starts alike."""
    width = recipe.train.width
    return TwoTower(
        build_tower(recipe.user_tower, width=width, where="user_tower", device=device),
        build_tower(recipe.item_tower, width=width, where="item_tower", device=device),
    )


def open_sources(recipe: Recipe, model: TwoTower, texts: Texts, accelerator: Accelerator) -> Sources:
    """Tokenises all texts once and, where asked for, runs the frozen layers once.

    An adapter that starts from its inputs (EVA) gets its start here.
    """
    budget = recipe.train.token_budget
    opened = []
    parts = (
        ("histories", model.user_tower, recipe.user_tower, texts.users),
        ("items", model.item_tower, recipe.item_tower, texts.items),
        ("items in the user tower", model.user_tower, recipe.user_tower, texts.items),
    )
    for what, tower, section, part in parts:
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
        opened.append(
            open_source(tower, tokens, accelerator, what=what, prefix_cache=cached, token_budget=budget)
        )
    sources = Sources(*opened)
    for tower, source in ((model.user_tower, sources.users), (model.item_tower, sources.items)):
        start_adapter(tower, source, seed=recipe.train.seed, token_budget=budget)
    return sources


def open_source(
    tower: Tower,
    tokens: TokenizedTexts,
    accelerator: Accelerator,
    *,
    what: str,
    prefix_cache: bool,
    token_budget: int,
) -> BatchSource:
    """Gives texts as a tower is to read them: from the prefix cache where there is one to be had."""
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
            batches, desc=f"frozen layers, {what}", disable=not accelerator.is_main_process
        ),
    )


def start_adapter(tower: Tower, source: BatchSource, *, seed: int, token_budget: int) -> None:
    """Gives an adapter that starts from its inputs (EVA) its start, from a sample of texts."""

    def batches() -> Iterator[tuple[TokenBatch, torch.Tensor]]:
        n = len(source.lengths)
        sample = np.random.default_rng(seed).permutation(n)[:START_TEXTS]
        for rows in plan_micro_batches(source.lengths[sample], token_budget=token_budget):
            batch = source.batch(sample[rows]).to(tower.device)
            yield batch, batch.attention_mask

    start_from_inputs(tower.adapter, tower.encode_states, batches())


def teach(recipe: Recipe, linear: LinearModel, examples: Examples) -> Teacher:
    """Gives the unit vectors of a linear item-item model for the catalogue and the training examples."""
    return build_teacher(
        linear.item_vectors(), linear.user_vectors(examples.histories), width=recipe.train.width
    )


def solve_and_encode(
    recipe: Recipe,
    model: TwoTower,
    sources: Sources,
    texts: Texts,
    teacher: Teacher,
    accelerator: Accelerator,
) -> Vectors:
    """Sets both projections to the best map of the towers' present states onto the teacher; applies it."""
    budget = recipe.train.token_budget
    items = shared_states(accelerator, model.item_tower, sources.items, token_budget=budget)
    solve_projection(model.item_tower.projection, items, teacher.items, where="item_tower")
    users = shared_states(accelerator, model.user_tower, sources.users, token_budget=budget)
    solve_projection(
        model.user_tower.projection, users[texts.example_texts], teacher.users, where="user_tower"
    )
    return Vectors(project(model.item_tower, items), project(model.user_tower, users))


def read_items(
    recipe: Recipe, model: TwoTower, sources: Sources, accelerator: Accelerator
) -> NDArray[np.float32]:
    """Gives (N, H) unit vectors of item texts as the user tower's encoder reads them, centred.

    Encoders know better than decoders how alike two texts are, and this one has read the titles in its
    histories.
    """
    return centre(read_states(recipe, model, sources, accelerator))


def read_states(
    recipe: Recipe, model: TwoTower, sources: Sources, accelerator: Accelerator
) -> NDArray[np.float32]:
    """Gives (N, H), what the user tower's encoder makes of item texts, as it is."""
    budget = recipe.train.token_budget
    return shared_states(accelerator, model.user_tower, sources.items_for_user_tower, token_budget=budget)


def train_towers(
    recipe: Recipe,
    model: TwoTower,
    sources: Sources,
    texts: Texts,
    examples: Examples,
    split: Split,
    teacher: Teacher,
    frozen: Vectors,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the adapters from the state that gave `frozen`; the model ends at the best `ndcg@10`."""

    def score(vectors: Vectors) -> float:
        users = vectors.users[texts.validation_texts]
        lists, _ = top_k(users, vectors.items, k=JUDGED_K, exclude=split.validation.histories)
        return mean_ndcg(lists, split.validation)

    return train_adapters(
        recipe,
        model,
        sources,
        texts,
        examples,
        teacher,
        accelerator,
        known=split.train_histories(),
        start_validation=score(frozen),
        validate=lambda: score(solve_and_encode(recipe, model, sources, texts, teacher, accelerator)),
        checkpoints=checkpoints,
    )


def train_adapters(
    recipe: Recipe,
    model: TwoTower,
    sources: Sources,
    texts: Texts,
    examples: Examples,
    teacher: Teacher,
    accelerator: Accelerator,
    *,
    known: Lists,
    start_validation: float,
    validate: Callable[[], float],
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the adapters; the model ends in the state for which `validate` gave the most.

    Args:
        recipe: its section `train` is read.
        model: both towers.
        sources: their texts.
        texts: which of the users' texts is that of each example.
        examples: users are rows of `known`.
        teacher: see `teach`.
        accelerator: of accelerate.
        known: what each user took in training.
        start_validation: score of the model as it is given.
        validate: solves the projections anew and gives a score, the same in every process.
        checkpoints: where a stopped run goes on from; None keeps none.
    """
    section = recipe.train
    return train_two_tower(
        model,
        accelerator,
        user_source=sources.users,
        user_texts=texts.example_texts,
        item_source=sources.items,
        examples=examples,
        known=known,
        item_counts=np.bincount(known.values, minlength=len(texts.items)),
        teacher=teacher,
        start_validation=start_validation,
        validate=validate,
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        warmup_share=section.warmup_share,
        max_gradient_norm=section.max_gradient_norm,
        temperature=section.temperature,
        popularity_correction=section.popularity_correction,
        distillation=section.distillation,
        extra_items=section.extra_items,
        token_budget=section.token_budget,
        patience=section.patience,
        seed=section.seed,
        checkpoints=checkpoints,
    )

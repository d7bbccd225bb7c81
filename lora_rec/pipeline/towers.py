"""From the recipe's tower and training sections to trained towers and their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lora_rec.data.dataset import Split
from lora_rec.data.examples import Examples
from lora_rec.metrics import ndcg_at_k
from lora_rec.pipeline.data import Texts
from lora_rec.rank.linear import LinearModel, centre
from lora_rec.rank.search import top_k
from lora_rec.recipe import Recipe, TowerSection
from lora_rec.text.collate import BatchSource, tokenize
from lora_rec.towers.adapters import attach_lora
from lora_rec.towers.backbone import cache_folder, load_backbone
from lora_rec.towers.two_tower import Tower, TwoTower, project
from lora_rec.train.loop import TrainingResult, train_two_tower
from lora_rec.train.prefix_cache import open_prefix_cache
from lora_rec.train.projections import Teacher, build_teacher, solve_projection
from lora_rec.train.shared import shared_states

if TYPE_CHECKING:
    from accelerate import Accelerator


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


def build_tower(section: TowerSection, *, kind: str, width: int, where: str) -> Tower:
    """Loads a backbone and attaches its adapter."""
    backbone = load_backbone(
        section.backbone, kind=kind, revision=section.revision, precision=section.precision, where=where
    )
    model = attach_lora(
        backbone.model,
        lora_rank=section.lora_rank,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        trained_layers=section.trained_layers,
        target_modules=section.target_modules,
        where=where,
    )
    return Tower(backbone, model, pooling=section.pooling, trained_layers=section.trained_layers, width=width)


def build_towers(recipe: Recipe) -> TwoTower:
    """Builds both towers; seed the generators before, so that every process starts alike."""
    width = recipe.train.width
    return TwoTower(
        build_tower(recipe.user_tower, kind="encoder", width=width, where="user_tower"),
        build_tower(recipe.item_tower, kind="decoder", width=width, where="item_tower"),
    )


def open_sources(recipe: Recipe, model: TwoTower, texts: Texts, accelerator: Accelerator) -> Sources:
    """Tokenises all texts and, where asked for, runs the frozen layers once."""
    opened = []
    parts = (
        ("histories", model.user_tower, recipe.user_tower, texts.users),
        ("items", model.item_tower, recipe.item_tower, texts.items),
        ("items in the user tower", model.user_tower, recipe.user_tower, texts.items),
    )
    for what, tower, section, part in parts:
        tokens = tokenize(tower.backbone_info.tokenizer, part, max_tokens=section.max_tokens)
        source: BatchSource = tokens
        if recipe.train.prefix_cache:
            with accelerator.main_process_first():
                source = open_prefix_cache(
                    tower,
                    tokens,
                    root=cache_folder(),
                    token_budget=recipe.train.token_budget,
                    progress=lambda batches, what=what: tqdm(list(batches), desc=f"frozen layers, {what}"),  # type: ignore[misc]
                )
        opened.append(source)
    return Sources(*opened)


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
    solve_projection(model.item_tower.projection, items, teacher.items)
    users = shared_states(accelerator, model.user_tower, sources.users, token_budget=budget)
    solve_projection(model.user_tower.projection, users[texts.example_texts], teacher.users)
    return Vectors(project(model.item_tower, items), project(model.user_tower, users))


def read_items(
    recipe: Recipe, model: TwoTower, sources: Sources, accelerator: Accelerator
) -> NDArray[np.float32]:
    """Gives (N, H) unit vectors of item texts as the user tower's encoder reads them, centred.

    Encoders know better than decoders how alike two texts are, and this one has read the titles in its
    histories.
    """
    budget = recipe.train.token_budget
    return centre(
        shared_states(accelerator, model.user_tower, sources.items_for_user_tower, token_budget=budget)
    )


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
) -> TrainingResult:
    """Trains the adapters from the state that gave `frozen`; the model ends at the best `ndcg@10`."""
    section = recipe.train

    def score(vectors: Vectors) -> float:
        users = vectors.users[texts.validation_texts]
        lists, _ = top_k(users, vectors.items, k=10, exclude=split.validation.histories)
        return float(ndcg_at_k(lists, list(split.validation.targets), k=10).mean())

    return train_two_tower(
        model,
        accelerator,
        user_source=sources.users,
        user_texts=texts.example_texts,
        item_source=sources.items,
        examples=examples,
        known=split.train_histories(),
        item_counts=split.item_counts(),
        teacher=teacher,
        start_validation=score(frozen),
        validate=lambda: score(solve_and_encode(recipe, model, sources, texts, teacher, accelerator)),
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
    )

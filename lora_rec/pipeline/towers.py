"""From the recipe's tower and training sections to trained towers and their vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_rec.adapter_settings import FULL_PRECISION_ONLY
from lora_rec.data.dataset import Dataset, Split
from lora_rec.data.examples import Examples
from lora_rec.data.labels import check_likes
from lora_rec.pipeline.data import Texts
from lora_rec.pipeline.interest import LabelledPairs, interest_auc, pairs_of, report_interest
from lora_rec.pipeline.judge import JUDGED_K, mean_ndcg
from lora_rec.pipeline.sources import Sources
from lora_rec.pipeline.starts import find_start, settings_of
from lora_rec.rank.linear import LinearModel, centre
from lora_rec.rank.search import top_k
from lora_rec.recipe import Recipe
from lora_rec.tower_section import TowerSection
from lora_rec.towers.adapters import (
    attach,
    attach_saved,
    start_from_weights,
)
from lora_rec.towers.backbone import load_backbone
from lora_rec.towers.two_tower import Tower, TwoTower, project
from lora_rec.train.adversary import Adversary
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.loop import TrainingResult, train_two_tower
from lora_rec.train.objectives import Material, Objectives
from lora_rec.train.projections import Teacher, build_teacher, solve_projection
from lora_rec.train.shared import shared_states

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


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
    knows = teacher.knows
    solve_projection(model.item_tower.projection, items[knows], teacher.items[knows], where="item_tower")
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
    material: Material,
    dataset: Dataset,
    split: Split,
    frozen: Vectors,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the adapters from the state that gave `frozen`; the model ends at the best validation score."""
    pairs: LabelledPairs | None = None
    if recipe.objectives.judged_by == "interest":
        pairs = pairs_of(
            split.refit_log,
            split.validation,
            texts.validation_texts,
            recipe.objectives,
            n_items=dataset.n_items,
        )
        check_likes(pairs.liked, liked_from=recipe.objectives.liked_from, what="of validation")

    def score(vectors: Vectors) -> float:
        if pairs is not None:
            return interest_auc(pairs, model, vectors.users, vectors.items, recipe.train.temperature)
        users = vectors.users[texts.validation_texts]
        lists, _ = top_k(users, vectors.items, k=JUDGED_K, exclude=split.validation.histories)
        return mean_ndcg(lists, split.validation)

    return train_adapters(
        recipe,
        model,
        sources,
        texts,
        material,
        accelerator,
        start=frozen,
        start_validation=score(frozen),
        validate=score,
        checkpoints=checkpoints,
    )


def measure_interest(
    recipe: Recipe, model: TwoTower, dataset: Dataset, split: Split, texts: Texts, vectors: Vectors
) -> dict[str, Any]:
    """Gives how well likes are told on the test, with chances calibrated on validation data."""
    validation, test = (
        pairs_of(rated, part, numbers, recipe.objectives, n_items=dataset.n_items)
        for rated, part, numbers in (
            (split.refit_log, split.validation, texts.validation_texts),
            (dataset, split.test, texts.test_texts),
        )
    )
    return report_interest(
        validation, test, model, vectors.users, vectors.items, temperature=recipe.train.temperature
    )


def train_adapters(
    recipe: Recipe,
    model: TwoTower,
    sources: Sources,
    texts: Texts,
    material: Material,
    accelerator: Accelerator,
    *,
    start: Vectors,
    start_validation: float,
    validate: Callable[[Vectors], float],
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the adapters; the model ends in the state for which `validate` gave the most.

    Args:
        recipe: its sections `train`, `objectives` and `regularisation` are read.
        model: both towers.
        sources: their texts.
        texts: which of the users' texts is that of each example.
        material: what there is to learn from.
        accelerator: of accelerate.
        start: vectors of the model as it is given.
        start_validation: its score.
        validate: gives a score of vectors, the same in every process.
        checkpoints: where a stopped run goes on from; None keeps none.
    """
    section, tasks, limits = recipe.train, recipe.objectives, recipe.regularisation
    latest = start

    def judge() -> float:
        nonlocal latest
        latest = solve_and_encode(recipe, model, sources, texts, material.teacher, accelerator)
        return validate(latest)

    def mine() -> NDArray[np.int32]:
        taken, known = material.taken_items, material.known.take(material.examples.users)
        known = replace(known, values=np.searchsorted(taken, known.values))
        users = latest.users[material.user_texts]
        found = top_k(users, latest.items[taken], k=tasks.mined_pool, exclude=known)[0]
        return np.where(found >= 0, taken[found], -1).astype(np.int32)

    return train_two_tower(
        model,
        accelerator,
        user_source=sources.varied_users,
        item_source=sources.varied_items,
        objectives=Objectives(
            material,
            weights=tasks.active,
            learns_weights=tasks.weighting == "uncertainty",
            temperature=section.temperature,
            popularity_correction=section.popularity_correction,
            label_smoothing=limits.label_smoothing,
            extra_items=section.extra_items,
            mined_negatives=tasks.mined_negatives,
            lists_per_step=tasks.lists_per_step,
            list_length=tasks.list_length,
            seed=section.seed,
        ),
        adversary=Adversary(limits.adversary, limits.adversarial_size, limits.adversarial_steps),
        start_validation=start_validation,
        validate=judge,
        mine=mine if tasks.mined_negatives else None,
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        warmup_share=section.warmup_share,
        max_gradient_norm=section.max_gradient_norm,
        token_budget=section.token_budget,
        patience=section.patience,
        seed=section.seed,
        checkpoints=checkpoints,
    )

"""From a recipe without labels to a trained adapter and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoTokenizer

from lora_rec.bundle import file_digest
from lora_rec.data_section import DataSection
from lora_rec.errors import TowerError, TrainingError
from lora_rec.export.bundle_writer import PACKAGES, cut_paths, describe_source, version_of
from lora_rec.export.pretrained import write_pretrained
from lora_rec.pipeline.checkpoints import open_run
from lora_rec.pipeline.domain import Domain
from lora_rec.pipeline.pretrain_tasks import Builder
from lora_rec.pipeline.sources import open_source, start_adapter
from lora_rec.pipeline.towers import build_tower
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.text.collate import tokenize
from lora_rec.towers.backbone import read_config
from lora_rec.towers.source import resolve_backbone
from lora_rec.towers.two_tower import Tower
from lora_rec.train.checkpoint import Checkpoints
from lora_rec.train.epochs import TrainingResult, run_epochs
from lora_rec.train.tasks.objective import Objective, OneTower
from lora_rec.train.tasks.task import Task, Validation

if TYPE_CHECKING:
    from accelerate import Accelerator

WHERE = "tower"
PATHS = (
    "data.root",
    "data.interactions",
    "data.items",
    "data.friends",
    "corpus.path",
    "tasks.entities.gazetteer",
    "tower.backbone",
    "tower.start_from",
)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What a run did; the tower holds the best state."""

    tower: Tower
    tasks: list[Task]
    before: dict[str, Validation]
    after: dict[str, Validation]
    training: TrainingResult


def check_tasks(recipe: PretrainRecipe) -> None:
    """Refuses tasks that the backbone cannot do, before data or weights are read.

    Raises:
        TowerError: with the reason.
    """
    section = recipe.tower
    source = resolve_backbone(section.backbone, revision=section.revision, where=f"{WHERE}.backbone")
    _, kind = read_config(source, name=section.backbone, where=WHERE)
    tasks = recipe.tasks
    if tasks.mlm is not None and kind == "decoder":
        raise TowerError(
            f"tasks.mlm: {section.backbone!r} is of the GPT type, where a token sees only those before it,"
            " and masked language modelling needs both sides; use tasks.clm"
        )
    if tasks.clm is not None and kind == "encoder":
        raise TowerError(
            f"tasks.clm: {section.backbone!r} is of the BERT type, where a token sees the next one, so there"
            " is nothing to predict; use tasks.mlm"
        )
    if tasks.mlm is None and tasks.entities is None:
        return
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    if tasks.mlm is not None and tokenizer.mask_token_id is None:
        raise TowerError(
            f"tasks.mlm: the tokenizer of {section.backbone!r} has no mask token; use another backbone"
        )
    if tasks.entities is not None and not tokenizer.is_fast:
        raise TowerError(
            f"tasks.entities: the tokenizer of {section.backbone!r} does not say where its tokens stand"
            " in the text; use a backbone with a tokenizer.json"
        )


def build_learner(
    recipe: PretrainRecipe, domain: Domain, accelerator: Accelerator
) -> tuple[OneTower, list[Task]]:
    """Builds tower, tasks and heads; seed the generators before, so that every process starts alike."""
    tasks = recipe.tasks
    tower = build_tower(
        recipe.tower,
        width=None,
        where=WHERE,
        device=accelerator.device,
        lm_head=tasks.mlm is not None or tasks.clm is not None,
    )
    built = Builder(recipe, domain, tower, accelerator).build()
    section = recipe.train
    if tower.adapter.settings.adapter == "lora" and tower.adapter.settings["lora_start"] == "eva":
        tokens = tokenize(
            tower.backbone_info.tokenizer, domain.item_texts(), max_tokens=recipe.tower.max_tokens
        )
        source = open_source(
            tower,
            tokens,
            accelerator,
            what="texts",
            prefix_cache=section.prefix_cache,
            token_budget=section.token_budget,
        )
        known = np.arange(len(tokens.lengths))
        start_adapter(tower, source, known, seed=section.seed, token_budget=section.token_budget)
    return OneTower(tower, built), built


def open_pretrain_checkpoints(
    recipe: PretrainRecipe, domain: Domain, model: OneTower, accelerator: Accelerator
) -> Checkpoints:
    """Opens the checkpoints beside the recipe's output; see `checkpoints.open_run`."""
    settings = asdict(recipe)
    digest = domain.fingerprint
    names = recipe.tasks.entities.gazetteer if recipe.tasks.entities is not None else None
    if names is not None and Path(names).is_file():
        digest += file_digest(Path(names))
    return open_run(
        recipe.output,
        recipe.checkpoint,
        {name: settings[name] for name in ("text", "tower", "tasks", "train")},
        digest=digest,
        towers=model.towers,
        accelerator=accelerator,
    )


def train_tasks(
    recipe: PretrainRecipe,
    model: OneTower,
    tasks: list[Task],
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
) -> Pretrained:
    """Trains the adapter; the model ends in the state with the lowest held-out loss."""
    section = recipe.train
    objective = Objective(
        tasks=tasks,
        weights={name: chosen.weight for name, chosen in recipe.tasks.chosen.items()},
        accelerator=accelerator,
        tower=model.tower,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        token_budget=section.token_budget,
        seed=section.seed,
    )
    before = objective.validate()
    training = run_epochs(
        model,
        accelerator,
        batches=objective.batches,
        gradients=objective.gradients,
        start_validation=objective.score(before),
        validate=lambda: objective.score(objective.validate()),
        epochs=section.epochs,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        warmup_share=section.warmup_share,
        max_gradient_norm=section.max_gradient_norm,
        token_budget=section.token_budget,
        patience=section.patience,
        checkpoints=checkpoints,
    )
    return Pretrained(model.tower, tasks, before, objective.validate(), training)


def write_result(
    recipe: PretrainRecipe, domain: Domain, pretrained: Pretrained, *, cost: Mapping[str, Any]
) -> Path:
    """Writes the adapter and what was done.

    Raises:
        TrainingError: nothing was learned, so there is nothing to write.
    """
    training = pretrained.training
    if training.best_epoch == 0:
        raise TrainingError(
            "train: no epoch lowered the held-out loss, so there is no adapter to write; lower"
            f" train.learning_rate ({recipe.train.learning_rate:g}) or give more texts"
        )
    facts = {
        "tasks": _task_facts(recipe, pretrained),
        "training": {key: value for key, value in asdict(training).items() if key != "ranks"},
        "parameters": asdict(pretrained.tower.count_parameters()),
        "texts": {"n_items": len(domain.items), "n_sequences": len(domain.sequences), **_source(recipe)},
        "cost": cost,
        "versions": {name: version_of(name) for name in PACKAGES},
    }
    return write_pretrained(
        recipe.output,
        pretrained.tower,
        facts,
        recipe=cut_paths(recipe.to_yaml(), PATHS),
        backbone=recipe.tower.backbone,
        trained_layers=recipe.tower.trained_layers,
    )


def _source(recipe: PretrainRecipe) -> dict[str, Any]:
    if isinstance(recipe.data, DataSection):
        return asdict(describe_source(recipe.data))
    assert recipe.corpus is not None  # the recipe has checked that there is one of the two
    return {"name": Path(recipe.corpus.path).name}


def _task_facts(recipe: PretrainRecipe, pretrained: Pretrained) -> dict[str, Any]:
    facts = {}
    for task in pretrained.tasks:
        before, after = pretrained.before[task.name], pretrained.after[task.name]
        facts[task.name] = {
            "weight": recipe.tasks.chosen[task.name].weight,
            "n_examples": task.n_examples,
            "n_held_out": task.n_held_out,
            "measure": task.measure,
            "before": before.measure,
            "after": after.measure,
            "loss_before": before.loss,
            "loss_after": after.loss,
        }
    return facts


def format_result(recipe: PretrainRecipe, pretrained: Pretrained, folder: Path) -> str:
    """Gives the table of the tasks, and how to go on."""
    head = ("task", "measure", "weight", "examples", "held out", "before", "after")
    rows = [head] + [
        (
            name,
            facts["measure"],
            f"{facts['weight']:g}",
            f"{facts['n_examples']:,}",
            f"{facts['n_held_out']:,}",
            _number(facts["before"]),
            _number(facts["after"]),
        )
        for name, facts in _task_facts(recipe, pretrained).items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = [":" + "-" * (w - 1) if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]

    def line(row: tuple[str, ...]) -> list[str]:
        padded = zip(row, widths, strict=True)
        return [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(padded)]

    table = ["| " + " | ".join(cells) + " |" for cells in (line(head), rule, *map(line, rows[1:]))]
    count = pretrained.tower.count_parameters()
    training = pretrained.training
    return "\n".join(
        [
            *table,
            f"best after epoch {training.best_epoch} of {len(training.epochs)};"
            f" {count.trained:,} of {count.total:,} parameters learned ({count.share:.2%})",
            f"adapter: {folder}; {_way_on(recipe.tower.adapter, folder)}",
        ]
    )


def _way_on(adapter: str, folder: Path) -> str:
    """Says what a two-tower recipe does with the result."""
    merged = f"puts a new adapter on what lora-rec merge {folder} OUT writes"
    if adapter not in ("lora", "adalora"):  # only these are a LoRA on disk
        return f"a two-tower recipe {merged}"
    start = f"user_tower.start_from={folder} (or item_tower)"
    return f"a two-tower recipe goes on from it with {start}, or {merged}"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"

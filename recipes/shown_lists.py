"""Learns to order lists that were shown, from what was clicked, and writes a bundle.

accelerate launch -q recipes/shown_lists.py recipes/configs/mind.yaml data.root=FOLDER output=runs/mine

Where every day brings new items there is no catalogue to rank. Both towers learn from who read what, or stay
frozen (user_tower.adapter=none item_tower.adapter=none); the user tower then reads the items, and the scorer
matches them with the items of a history. `-q` keeps the traceback away: an error is one line.
"""

from __future__ import annotations

import sys

from accelerate.utils import set_seed

from lora_rec.bundle import check_output
from lora_rec.export.bundle_writer import export_bundle
from lora_rec.pipeline.checkpoints import open_checkpoints
from lora_rec.pipeline.hub import check_push, push_after_run
from lora_rec.pipeline.launch import check_launch, launch, start_processes
from lora_rec.pipeline.report import Stages, collect_training
from lora_rec.pipeline.shown import (
    ShownComparison,
    prepare_shown,
    prepare_shown_material,
    read_item_texts,
    teach_shown,
    train_on_histories,
)
from lora_rec.pipeline.shown_report import print_shown_report
from lora_rec.pipeline.sources import open_sources
from lora_rec.pipeline.towers import build_towers, solve_and_encode
from lora_rec.rank.linear import centre
from lora_rec.rank.spaces import ItemSpaces
from lora_rec.recipe import Recipe
from lora_rec.train.shared import as_in_main


def run(recipe: Recipe) -> None:
    """Goes from data to bundle, stage by stage."""
    check_output(recipe.output)
    check_push(recipe.hub)
    check_launch()
    accelerator = start_processes()
    set_seed(recipe.train.seed)
    stages = Stages()

    with stages("data"):
        data = prepare_shown(recipe)
        if accelerator.is_main_process:
            print(data.split, flush=True)
    with stages("load towers"):  # before what takes longer, since a name may be wrong
        model = build_towers(recipe, device=accelerator.device)
    with stages("EASE"):
        teacher = as_in_main(teach_shown(recipe, data))  # signs of eigenvectors are each machine's own
        material = prepare_shown_material(recipe, data, teacher)
    shown = data.split.validation
    judged = (shown.candidates.values, shown.candidates.offsets, shown.clicks)
    checkpoints = open_checkpoints(recipe, model, data.texts, material, accelerator, judged=judged)
    with stages("frozen layers"):
        sources = open_sources(recipe, model, data.texts, accelerator)
    with stages("frozen towers"):
        vectors = solve_and_encode(recipe, model, sources, data.texts, teacher, accelerator)
        frozen = read = read_item_texts(recipe, model, sources, accelerator)
    with stages("train adapters"):
        training = train_on_histories(
            recipe, model, sources, data, material, vectors, frozen, accelerator, checkpoints
        )
    learned = training.best_epoch > 0
    if learned:
        with stages("encode"):
            vectors = solve_and_encode(recipe, model, sources, data.texts, teacher, accelerator)
            read = read_item_texts(recipe, model, sources, accelerator)
    if not accelerator.is_main_process:
        return
    with stages("shown lists"):
        comparison = ShownComparison(data.split, recipe.train.seed)
        comparison.add_click_rate(n_items=data.dataset.n_items)
        scorer = comparison.add_scorer("frozen_towers", frozen)
        if learned:
            scorer = comparison.add_scorer("trained_towers", read)
    metrics = comparison.rows | {"chosen": comparison.chosen} | collect_training(model, training)
    with stages("write bundle"):
        folder = export_bundle(
            recipe,
            model,
            data.dataset,
            item_vectors=vectors.items,
            spaces=ItemSpaces(centre(read)),
            metrics=metrics,
            learned=learned,
            pictures={},
            shown=scorer.to_arrays(),
        )
    checkpoints.remove()
    print_shown_report(folder, metrics, stages, data=data)
    if outcome := push_after_run(recipe.hub, folder):
        print(outcome, flush=True)


if __name__ == "__main__":
    sys.exit(launch(run, name="shown_lists", description=__doc__))

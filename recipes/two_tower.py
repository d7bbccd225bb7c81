"""Trains both towers, fits the ranking head, compares them with the baselines and writes a bundle.

accelerate launch -q recipes/two_tower.py recipes/configs/quickstart.yaml train.epochs=2 output=runs/mine

`-q` keeps the launcher's traceback away, so that an error is the one line that says what to do.
"""

from __future__ import annotations

import sys

from accelerate import Accelerator
from accelerate.utils import set_seed

from lora_rec.bundle import check_output
from lora_rec.export.bundle_writer import export_bundle
from lora_rec.pipeline.checkpoints import open_checkpoints
from lora_rec.pipeline.data import (
    check_list_length,
    describe_data,
    prepare_data,
    prepare_texts,
    read_categories,
)
from lora_rec.pipeline.head import fit_head
from lora_rec.pipeline.hub import check_push, push_after_run
from lora_rec.pipeline.interest import interest_line
from lora_rec.pipeline.launch import check_launch, launch, start_processes
from lora_rec.pipeline.objectives import prepare_material
from lora_rec.pipeline.pictures import check_pictures, draw_front, draw_ranks
from lora_rec.pipeline.ranking import Comparison, choose_ease, choose_linear, fit_linear
from lora_rec.pipeline.report import Stages, collect_metrics, print_report
from lora_rec.pipeline.sources import open_sources
from lora_rec.pipeline.spaces import make_spaces
from lora_rec.pipeline.towers import (
    build_towers,
    measure_interest,
    read_items,
    solve_and_encode,
    teach,
    train_towers,
)
from lora_rec.pipeline.tradeoff import measure_front, settings_of
from lora_rec.rank.linear import centre
from lora_rec.recipe import Recipe
from lora_rec.train.sharding import loading_device, shard_frozen_layers
from lora_rec.train.shared import as_in_main


def run(recipe: Recipe) -> None:
    """Goes from data to bundle, stage by stage."""
    check_output(recipe.output)
    check_pictures()
    check_push(recipe.hub)
    check_launch(shards=True)
    accelerator = start_processes()
    set_seed(recipe.train.seed)
    stages = Stages()

    with stages("data"):
        dataset, split = prepare_data(recipe.data)
        check_list_length(recipe.ranking, dataset)
        examples, texts = prepare_texts(recipe, dataset, split)
        categories = read_categories(recipe.ranking, dataset)
        print_once(accelerator, split.report)
    with stages("load towers"):  # before what takes longer, since a name may be wrong
        model = build_towers(recipe, device=loading_device(accelerator))
        shard_frozen_layers(model, accelerator)
    with stages("EASE"):
        chosen = choose_linear(split)
        linear = fit_linear(split.train_histories(), chosen, n_items=split.n_items)
        teacher = as_in_main(teach(recipe, linear, examples))  # signs of eigenvectors are each machine's own
        known = split.train_histories()
        material = prepare_material(
            recipe, dataset, examples, texts, teacher, known=known, log=split.train_log
        )
    judged = (split.validation.targets.values, split.validation.targets.offsets)
    checkpoints = open_checkpoints(recipe, model, texts, material, accelerator, judged=judged)
    with stages("frozen layers"):
        sources = open_sources(recipe, model, texts, accelerator)
    with stages("frozen towers"):
        frozen = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
    with stages("train adapters"):
        training = train_towers(
            recipe, model, sources, texts, material, dataset, split, frozen, accelerator, checkpoints
        )
    with stages("encode"):
        vectors = solve_and_encode(recipe, model, sources, texts, teacher, accelerator)
        item_states = read_items(recipe, model, sources, accelerator)
    if not accelerator.is_main_process:
        return
    with stages("ranking head"):
        fitted = fit_head(
            recipe.head,
            vectors,
            item_states,
            split,
            examples,
            texts,
            seed=recipe.train.seed,
            show_progress=True,
        )
    with stages("trade-off"):
        spaces, rulers = make_spaces(item_states, split)
        k, n_candidates = recipe.ranking.k, recipe.ranking.n_candidates
        front = measure_front(
            fitted,
            split,
            spaces,
            rulers,
            k=k,
            n_candidates=n_candidates,
            categories=categories,
            show_progress=True,
        )
        own, shown = settings_of(front, recipe.ranking)
        spaces = spaces.counted_anew(split.item_counts(include_validation=True))
    with stages("compare"):
        comparison = Comparison(split, ruler=centre(frozen.items), factors=rulers.factors, k=recipe.ranking.k)
        ease = choose_ease(split, chosen, show_progress=True)
        comparison.add_baselines(ease)
        comparison.add("frozen_towers", frozen.users[texts.test_texts], frozen.items)
        comparison.add("trained_towers", vectors.users[texts.test_texts], vectors.items)
        comparison.add_head(
            fitted,
            spaces,
            shown,
            n_candidates=n_candidates,
            chances=front.chances,
            categories=categories,
        )
        metrics = collect_metrics(comparison, model, training, ease, fitted, categories=categories)
    metrics |= {"data": describe_data(dataset, split), "cost": stages.to_json()}
    if recipe.objectives.interest > 0:
        metrics["interest"] = measure_interest(recipe, model, dataset, split, texts, vectors)
    ranks = training.ranks if training.best_epoch > 0 else {}
    pictures = {f"ranks_{name}.png": draw_ranks(name, steps) for name, steps in ranks.items()}
    with stages("write bundle"):
        folder = export_bundle(
            recipe,
            model,
            dataset,
            item_vectors=vectors.items,
            spaces=spaces,
            head=fitted.head.to_arrays(),
            front=front,
            setting=own,
            metrics=metrics,
            learned=training.best_epoch > 0,
            pictures=pictures | {"diversity.png": draw_front(front, own)},
        )
    checkpoints.remove()
    if "interest" in metrics:
        print(interest_line(metrics["interest"]), flush=True)
    print_report(
        folder,
        metrics,
        stages,
        dataset=dataset,
        split=split,
        setting=shown,
        k=recipe.ranking.k,
    )
    if outcome := push_after_run(recipe.hub, folder):
        print(outcome, flush=True)


def print_once(accelerator: Accelerator, text: object) -> None:
    """Prints in the main process alone."""
    if accelerator.is_main_process:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(launch(run, name="two_tower", description=__doc__))

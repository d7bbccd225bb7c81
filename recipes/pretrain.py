"""Lets one tower's adapter get to know the domain's texts, without labels; writes a plain PEFT adapter.

accelerate launch -q recipes/pretrain.py recipes/configs/pretrain-movielens.yaml train.epochs=2

A two-tower recipe goes on from it with user_tower.start_from=OUTPUT, or item_tower.start_from.
"""

from __future__ import annotations

import sys

from accelerate.utils import set_seed

from lora_rec.export.pretrained import check_place
from lora_rec.pipeline.domain import read_domain
from lora_rec.pipeline.launch import check_launch, launch, start_processes
from lora_rec.pipeline.pretrain import (
    build_learner,
    check_tasks,
    format_result,
    open_pretrain_checkpoints,
    train_tasks,
    write_result,
)
from lora_rec.pipeline.report import Stages
from lora_rec.pretrain_recipe import PretrainRecipe


def run(recipe: PretrainRecipe) -> None:
    """Goes from texts to an adapter, stage by stage."""
    check_place(recipe.output)
    check_tasks(recipe)
    check_launch()
    accelerator = start_processes()
    set_seed(recipe.train.seed)
    stages = Stages()

    with stages("texts"):
        domain = read_domain(recipe)
    with stages("tower and tasks"):
        model, tasks = build_learner(recipe, domain, accelerator)
    with stages("train"):
        checkpoints = open_pretrain_checkpoints(recipe, domain, model, accelerator)
        pretrained = train_tasks(recipe, model, tasks, accelerator, checkpoints)
    if not accelerator.is_main_process:
        return
    if pretrained.training.best_epoch == 0:
        checkpoints.remove()  # there is nothing to go on from: another rate is another run
    folder = write_result(recipe, domain, pretrained, cost=stages.to_json())
    checkpoints.remove()
    print(format_result(recipe, pretrained, folder), flush=True)


if __name__ == "__main__":
    sys.exit(launch(run, name="pretrain", description=__doc__, recipe=PretrainRecipe))

"""A shop whose texts tell everything, and a run without labels over it."""

import shutil

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tiny_names import WORDS
from transformers import AutoTokenizer

from lora_rec.config import build_config
from lora_rec.pipeline.domain import read_domain
from lora_rec.pipeline.pretrain import build_learner, open_pretrain_checkpoints, train_tasks
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.train.tasks.objective import Objective

TASKS = {
    "mlm": {"reads": "both"},
    "clm": {"reads": "both"},
    "nsp": {"pairs_per_sequence": 2},
    "category": {"field": "kind"},
    "entities": {"columns": ["kind"]},
    "history_views": {},
    "item_views": {},
}
ENCODER = [name for name in TASKS if name != "clm"]
DECODER = [name for name in TASKS if name != "mlm"]
SETTINGS = {
    "lora": {},
    "adalora": {"adapter": "adalora", "init_rank": 6, "target_rank": 2},
    "bf16": {"precision": "bf16"},
    "8bit": {"precision": "8bit", "compute": "fp32"},
    "4bit": {"precision": "4bit", "compute": "fp32"},
}


def base_of(task):
    return "llama" if task == "clm" else "bert"


def write_shop(folder, models):
    """Writes 40 items, 60 users who each keep to one kind, and a BERT with a mask token; gives a recipe."""
    generator = np.random.default_rng(0)
    kinds = [word.rstrip("0123456789") for word in WORDS]
    items = [f"i{n},{w} {k} {w},{k}" for n, (w, k) in enumerate(zip(WORDS, kinds, strict=True))]
    (folder / "items.csv").write_text("item_id,title,kind\n" + "\n".join(items) + "\n")
    rows = []
    for user in range(60):
        chosen = generator.permutation(20)[:9] + 20 * (user % 2)
        rows += [f"u{user},i{item},{1000 + 10 * place}" for place, item in enumerate(chosen)]
    (folder / "clicks.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    shutil.copytree(models["bert"], folder / "bert")
    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    tokenizer.mask_token = tokenizer.unk_token  # every word of the shop is known, so it is free
    tokenizer.save_pretrained(folder / "bert")
    return {
        "output": str(folder / "out"),
        "data": {"interactions": str(folder / "clicks.csv"), "items": str(folder / "items.csv")},
        "text": {"history_length": 4},
        "tower": {"backbone": str(folder / "bert"), "trained_layers": 2},
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.02, "held_out": 0.2},
    }


def recipe_of(tree, tasks, *, models, tower=None, **train):
    """Gives the recipe of some tasks, on the base that can do them."""
    own = {} if "clm" not in tasks else {"backbone": str(models["llama"])}
    return build_config(
        PretrainRecipe,
        tree
        | {
            "tasks": {name: TASKS[name] for name in tasks},
            "tower": tree["tower"] | own | (tower or {}),
            "train": tree["train"] | train,
        },
    )


def learner_of(recipe):
    """Gives a model with its tasks, and the objective over them."""
    accelerator = Accelerator(cpu=True)
    set_seed(recipe.train.seed)
    model, tasks = build_learner(recipe, read_domain(recipe), accelerator)
    objective = Objective(
        tasks=tasks,
        weights={name: section.weight for name, section in recipe.tasks.chosen.items()},
        accelerator=accelerator,
        tower=model.tower,
        batch_size=recipe.train.batch_size,
        learning_rate=recipe.train.learning_rate,
        token_budget=recipe.train.token_budget,
        seed=recipe.train.seed,
    )
    return model, tasks, objective


def pretrain(recipe, *, keep=False):
    """Runs the stages up to the trained adapter; with `keep` there are checkpoints beside the output."""
    accelerator = Accelerator(cpu=True)
    set_seed(recipe.train.seed)
    domain = read_domain(recipe)
    model, tasks = build_learner(recipe, domain, accelerator)
    kept = open_pretrain_checkpoints(recipe, domain, model, accelerator) if keep else None
    return model, train_tasks(recipe, model, tasks, accelerator, kept)


def learned(model):
    return {name: tensor.detach().clone() for name, tensor in model.learned_state().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name

"""Trains on pairs of a history's text and the next item's, as two peers do; called by speed.py.

`sentence_transformers` is that library's trainer with peft, as in its own example
https://github.com/huggingface/sentence-transformers/blob/01ef46a0f500b14e4e2b22f637ff92f1dce8499a/examples/sentence_transformer/training/peft/training_gooaq_lora.py
and `pad128` a loop of transformers and peft that pads every text to 128 tokens. Losses, adapters and rates
are the same: in-batch negatives with a scale of 20. fp32 on a CPU, because the benchmark's processors are
slow in bf16; bf16 on a GPU, by autocast in both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from peft import LoraConfig, TaskType, get_peft_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Router, Transformer
from stepwise import Turns
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, TrainerCallback, set_seed

MAX_TOKENS = 128
SCALE = 20.0
WIDTH = 384


def lora(settings: dict[str, Any]) -> LoraConfig:
    """Gives the adapter of every system: on queries and values of every layer."""
    rank = int(settings["lora_rank"])
    return LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        inference_mode=False,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.1,
    )


class InTurns(TrainerCallback):
    """Makes a trainer wait for its turn after each step."""

    def __init__(self, turns: Turns, batch: int) -> None:
        """Keeps the batch, which is what a step counts as."""
        self.turns, self.batch = turns, batch

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Lets the clock of the first step start with the step."""
        if state.global_step == 0:
            self.turns.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Reports."""
        self.turns.end(self.batch)


def build_sentence_model(backbones: list[str], settings: dict[str, Any]) -> SentenceTransformer:
    """Gives one encoder for both sides, or a router to an encoder and a decoder of one width."""
    if len(backbones) == 1:
        model = SentenceTransformer(backbones[0], device=settings["device"])
        model.max_seq_length = MAX_TOKENS
        model.add_adapter(lora(settings))
        return model
    sides = []
    for backbone, pooling in zip(backbones, ("mean", "lasttoken"), strict=True):
        encoder = Transformer(backbone, max_seq_length=MAX_TOKENS)
        if encoder.tokenizer.pad_token is None:
            encoder.tokenizer.pad_token = encoder.tokenizer.eos_token
        size = encoder.get_embedding_dimension()
        encoder.auto_model = get_peft_model(encoder.auto_model, lora(settings))
        sides.append([encoder, Pooling(size, pooling_mode=pooling)])
        if size != WIDTH:
            sides[-1].append(Dense(size, WIDTH, bias=False, activation_function=torch.nn.Identity()))
    router = Router.for_query_document(query_modules=sides[0], document_modules=sides[1])
    return SentenceTransformer(modules=[router], device=settings["device"])


def train_sentence_model(task: dict[str, Any], settings: dict[str, Any], turns: Turns | None) -> Any:
    """Gives a function from texts and their side to unit vectors, after training."""
    model = build_sentence_model(settings["backbones"], settings)
    pairs = task["pairs"]
    columns = {"anchor": task["user_texts"][pairs[:, 0]], "positive": task["item_texts"][pairs[:, 1]]}
    data = Dataset.from_dict({name: texts.tolist() for name, texts in columns.items()})
    two = len(settings["backbones"]) == 2
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch"],
            learning_rate=settings["learning_rate"],
            warmup_steps=0.1,
            use_cpu=settings["device"] == "cpu",
            bf16=settings["device"] == "cuda",
            seed=settings["seed"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            router_mapping={"anchor": "query", "positive": "document"} if two else {},
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=MultipleNegativesRankingLoss(model, scale=SCALE),
            callbacks=[InTurns(turns, settings["batch"])] if turns else None,
        ).train()

    def encode(texts: list[str], side: str) -> NDArray[np.float32]:
        given: dict[str, Any] = {"task": side} if two else {}
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False, **given)

    return encode


class PaddedSide:
    """One tower of the plain loop."""

    def __init__(self, backbone: str, pooling: str, settings: dict[str, Any]) -> None:
        """Loads a backbone and puts the adapter on."""
        self.tokenizer = AutoTokenizer.from_pretrained(backbone)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        self.device = torch.device(settings["device"])
        self.model = get_peft_model(AutoModel.from_pretrained(backbone), lora(settings)).to(self.device)
        self.model.train()
        self.pooling = pooling
        size = self.model.config.hidden_size
        to_width = torch.nn.Linear(size, WIDTH, bias=False) if size != WIDTH else torch.nn.Identity()
        self.to_width = to_width.to(self.device)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Gives unit vectors (B, W)."""
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self._vectors(tokens)

    def _vectors(self, tokens: Any) -> torch.Tensor:
        states, mask = self.model(**tokens).last_hidden_state, tokens["attention_mask"]
        if self.pooling == "mean":
            pooled = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            pooled = states[torch.arange(len(states), device=self.device), mask.sum(1) - 1]
        return functional.normalize(self.to_width(pooled).float(), dim=1)


def train_padded(task: dict[str, Any], settings: dict[str, Any], turns: Turns | None) -> Any:
    """Gives a function from texts and their side to unit vectors, after training."""
    backbones = settings["backbones"]
    users = PaddedSide(backbones[0], "mean", settings)
    items = users if len(backbones) == 1 else PaddedSide(backbones[1], "last", settings)
    sides = {"query": users, "document": items}
    parameters = {
        id(p): p
        for s in (users, items)
        for m in (s.model, s.to_width)
        for p in m.parameters()
        if p.requires_grad
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=settings["learning_rate"])
    pairs, batch = task["pairs"], settings["batch"]
    order = np.random.default_rng(settings["seed"])
    if turns:
        turns.begin()
    for _ in range(settings["epochs"]):
        rows = order.permutation(len(pairs))
        for start in range(0, len(rows) - batch + 1, batch):
            chosen = pairs[rows[start : start + batch]]
            found = users(task["user_texts"][chosen[:, 0]].tolist())
            wanted = items(task["item_texts"][chosen[:, 1]].tolist())
            loss = functional.cross_entropy(
                SCALE * found @ wanted.T, torch.arange(batch, device=found.device)
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if turns:
                turns.end(batch)

    @torch.no_grad()
    def encode(texts: list[str], side: str) -> NDArray[np.float32]:
        sides[side].model.eval()
        parts = [sides[side](texts[start : start + 64]) for start in range(0, len(texts), 64)]
        return torch.cat(parts).cpu().numpy()

    return encode


def main() -> None:
    """Parses the command line, trains in turns, or to the end with `--output`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=("sentence_transformers", "pad128"))
    parser.add_argument("--task", type=Path, required=True, help=".npz of speed.py")
    parser.add_argument("--settings", type=json.loads, required=True, help="as JSON")
    parser.add_argument("--output", type=Path, help=".npz to write: unit vectors of test users and items")
    arguments = parser.parse_args()
    with np.load(arguments.task, allow_pickle=True) as arrays:
        task = dict(arrays)
    settings = arguments.settings
    torch.set_num_threads(settings["threads"])
    set_seed(settings["seed"])
    cuda = settings["device"] == "cuda"
    turns = None if arguments.output else Turns(cuda=cuda, counts=cuda)
    train = train_padded if arguments.system == "pad128" else train_sentence_model
    began = time.perf_counter()
    encode = train(task, settings, turns)
    seconds = time.perf_counter() - began
    if arguments.output:
        users = {
            f"{part}_users": encode(task[f"{part}_texts"].tolist(), "query")
            for part in ("validation", "test")
        }
        np.savez(
            arguments.output, items=encode(task["item_texts"].tolist(), "document"), seconds=seconds, **users
        )


if __name__ == "__main__":
    main()

"""A GPT-type tower that answers yes or no, trained on few labels; and which labels to ask for next.

The two answers are scored by the language model's own head, so before any training the tower says what the
model says. Nothing but the adapter and one number, how much it leans to yes, is learned.

Source: Bao et al. 2023, "TALLRec: an effective and efficient tuning framework to align large language model
with recommendation", arXiv 2305.00447.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from lora_rec.errors import TowerError
from lora_rec.text.collate import BatchSource, plan_micro_batches
from lora_rec.text.prompts import NO, YES
from lora_rec.towers.two_tower import Tower
from lora_rec.train.adalora import Allocations, RankAllocation
from lora_rec.train.optim import build_optimizer, warmup_cosine

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]
_Bools = NDArray[np.bool_]
LEAN_RATE = 10.0
"""Of the one number beside the adapter, over the adapter's rate."""
WARMUP_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class YesNo:
    """A tower with the two answers."""

    tower: Tower
    direction: torch.Tensor
    """(H,), row of the language model's head for yes, less that for no."""
    lean: torch.nn.Parameter
    """(1,), added to the log-odds of yes."""

    def log_odds(self, source: BatchSource, indices: _Ints, *, token_budget: int) -> _Floats:
        """Gives (n,), the log-odds of yes for the chosen prompts, without gradients."""
        result = np.zeros(len(indices), dtype=np.float32)
        self.tower.eval()
        with torch.no_grad():
            for rows in plan_micro_batches(source.lengths[indices], token_budget=token_budget):
                result[rows] = self._of(source, indices[rows]).cpu().numpy()
        return result

    def train(
        self,
        source: BatchSource,
        indices: _Ints,
        labels: _Bools,
        accelerator: Accelerator,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        token_budget: int,
        seed: int,
    ) -> list[float]:
        """Learns labels of the chosen prompts by binary cross-entropy; gives the loss of each epoch.

        Args:
            source: of all prompts.
            indices: (n,), which are learned from.
            labels: (n,), whether the answer is yes.
            accelerator: of accelerate; of one process.
            epochs: passes over them.
            batch_size: prompts in one step.
            learning_rate: peak rate of the adapter.
            weight_decay: of AdamW.
            token_budget: padded tokens in one micro-batch.
            seed: of their order and of dropout.
        """
        adapter = self.tower.trained_parameters()
        optimizer = build_optimizer(
            adapter,
            factor=self.tower.adapter.learning_rate_factor,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        own = {"params": [self.lean], "lr": LEAN_RATE * learning_rate, "weight_decay": 0.0}
        optimizer.add_param_group(own)
        n_batches = -(-len(indices) // batch_size)
        n_steps = epochs * n_batches
        schedule = warmup_cosine(optimizer, n_steps=n_steps, warmup_share=WARMUP_SHARE)
        is_adalora = self.tower.adapter.settings.adapter == "adalora"
        allocations = Allocations(
            {"prompts": RankAllocation(self.tower, n_steps=n_steps, where="prompts")} if is_adalora else {}
        )
        losses = []
        self.tower.train()
        for epoch in range(epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(indices))
            total = 0.0
            for number, rows in enumerate(np.array_split(order, n_batches)):
                torch.manual_seed(seed * 1_000_003 + epoch * n_batches + number)
                for part in plan_micro_batches(source.lengths[indices[rows]], token_budget=token_budget):
                    chosen = rows[part]
                    logits = self._of(source, indices[chosen])
                    targets = torch.from_numpy(labels[chosen]).to(logits)
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(
                        logits, targets, reduction="sum"
                    )
                    (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
                    total += loss.item()
                allocations.add_penalty(accelerator)
                torch.nn.utils.clip_grad_norm_([*adapter.values(), self.lean], 1.0)
                optimizer.step()
                allocations.after_step(epoch * n_batches + number + 1, accelerator)
                schedule.step()
                optimizer.zero_grad()
            losses.append(total / len(indices))
        self.tower.eval()
        return losses

    def _of(self, source: BatchSource, indices: _Ints) -> torch.Tensor:
        states = self.tower.encode_states(source.batch(indices).to(self.tower.device))
        return states @ self.direction + self.lean


def answer_by_yes_or_no(tower: Tower, *, where: str = "item_tower") -> YesNo:
    """Gives a tower the answers yes and no.

    Args:
        tower: of a GPT-type backbone; its pooling is `last`.
        where: named in errors.

    Raises:
        TowerError: the backbone is no GPT type, pools otherwise, or has one token for both answers.
    """
    info = tower.backbone_info
    if info.kind != "decoder" or tower.pooling != "last":
        raise TowerError(
            f"{where}: answers are the next word after a prompt, and this tower is an {info.kind} that pools"
            f" {tower.pooling!r}; use a GPT-type backbone with pooling last"
        )
    tokens = [info.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (YES, NO)]
    if tokens[0] == tokens[1]:
        raise TowerError(f"{where}: the tokenizer has one token for {YES!r} and {NO!r}; use another backbone")
    if info.model.config.tie_word_embeddings:  # type: ignore[union-attr]
        head: Any = info.embeddings.weight
    else:
        whole = AutoModelForCausalLM.from_pretrained(info.source.folder, dtype=torch.float32)
        head = whole.get_output_embeddings().weight
    if head.shape[1] != info.output_size:
        raise TowerError(
            f"{where}: the head is {head.shape[1]} wide and the states {info.output_size};"
            " use another backbone"
        )
    rows = head[tokens].detach().float().to(tower.device)
    lean = torch.nn.Parameter(torch.zeros(1, device=tower.device))
    return YesNo(tower, rows[0] - rows[1], lean)


def confident(log_odds: _Floats, *, threshold: float) -> tuple[_Ints, _Bools]:
    """Gives which predictions are sure enough to be labels, and these labels (self-training).

    Args:
        log_odds: (n,)
        threshold: least chance of the likelier answer, in (.5, 1).

    Source: Lee 2013, "Pseudo-label: the simple and efficient semi-supervised learning method".

    >>> confident(np.array([3.0, 0.1, -2.5], "f4"), threshold=0.9)
    (array([0, 2]), array([ True, False]))
    """
    least = np.log(threshold / (1 - threshold))
    chosen = np.flatnonzero(np.abs(log_odds) >= least)
    return chosen, log_odds[chosen] > 0


def most_uncertain(log_odds: _Floats, *, n: int) -> _Ints:
    """Gives the n predictions nearest to a half, the ones to label next (uncertainty sampling).

    Source: Lewis and Gale 1994, "A sequential algorithm for training text classifiers".

    >>> most_uncertain(np.array([3.0, 0.1, -2.5], "f4"), n=2).tolist()
    [1, 2]
    """
    return np.argsort(np.abs(log_odds), kind="stable")[:n]

"""A GPT-type tower that answers yes or no, trained on few labels; and which labels to ask for next.

The two answers are scored by the language model's own head, so before any training the tower says what the
model says. Nothing but the adapter and one number, how much it leans to yes, is learned.

Source: Bao et al. 2023, "TALLRec: an effective and efficient tuning framework to align large language model
with recommendation", arXiv 2305.00447.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM

from lora_rec.errors import TowerError
from lora_rec.text.collate import BatchSource
from lora_rec.text.prompts import NO, QUESTION_END, YES
from lora_rec.towers.two_tower import Tower, encode_states
from lora_rec.train.epochs import TrainingResult, run_epochs
from lora_rec.train.shared import learn_texts
from lora_rec.train.state import StepLoss

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]
_Bools = NDArray[np.bool_]
LEAN_RATE = 10.0
"""Of the one number beside the adapter, over the adapter's rate."""
WARMUP_SHARE = 0.1


class YesNo(nn.Module):
    """A tower with the two answers."""

    def __init__(
        self, tower: Tower, rows: torch.Tensor, biases: torch.Tensor, *, soft_cap: float | None = None
    ) -> None:
        """Starts with the language model's own leaning.

        Args:
            tower: of a GPT-type backbone.
            rows: (2, H), of the language model's head for yes and no.
            biases: (2,), of the same.
            soft_cap: what the model keeps its logits within, where it does (Gemma 2).
        """
        super().__init__()
        self.tower, self.rows, self.soft_cap = tower, rows, soft_cap
        self.biases = biases
        self.lean = nn.Parameter(torch.zeros(1, device=tower.device))
        """(1,), added to the log-odds of yes."""

    @property
    def towers(self) -> dict[str, Tower]:
        """The tower by its name."""
        return {"tower": self.tower}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors of the adapter, and the leaning, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Gives the tensors that have to move in the first steps."""
        return {name: p for name, p in self.trained_parameters().items() if name != "lean"}

    def learned_state(self) -> dict[str, torch.Tensor]:
        """Gives all that differs between two states of training."""
        return dict(self.trained_parameters())

    def learning_rate_factor(self, name: str) -> float:
        """Gives the factor of the learning rate for one trained tensor."""
        return LEAN_RATE if name == "lean" else self.tower.adapter.learning_rate_factor(name)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Gives the log-odds of yes (B,) from the states of prompts (B, H)."""
        logits = states @ self.rows.T + self.biases
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        return logits[:, 0] - logits[:, 1] + self.lean

    def log_odds(self, source: BatchSource, indices: _Ints, *, token_budget: int) -> _Floats:
        """Gives (n,), the log-odds of yes for the chosen prompts, without gradients.

        The prompts end in their question: they are tokenised with `keep_end`.
        """
        states = encode_states(self.tower, source, indices, token_budget=token_budget)
        with torch.no_grad():
            return self(torch.from_numpy(states).to(self.rows)).cpu().numpy()

    def train_on(
        self,
        source: BatchSource,
        indices: _Ints,
        labels: _Bools,
        accelerator: Accelerator,
        *,
        validate: Callable[[], float],
        epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        token_budget: int,
        patience: int,
        seed: int,
    ) -> TrainingResult:
        """Learns labels of the chosen prompts by binary cross-entropy, and keeps what validates best.

        Args:
            source: of all prompts, tokenised with `keep_end`.
            indices: (n,), which are learned from.
            labels: (n,), whether the answer is yes.
            accelerator: of accelerate.
            validate: called after each epoch; gives a score; higher is better.
            epochs: passes over them, at most.
            batch_size: prompts in one step, over all processes.
            learning_rate: peak rate of the adapter.
            weight_decay: of AdamW.
            token_budget: padded tokens in one micro-batch.
            patience: epochs without a better validation before it stops.
            seed: of their order and of dropout.
        """
        n_batches = -(-len(indices) // batch_size)
        wanted = torch.from_numpy(labels).to(self.rows)

        def batches(epoch: int) -> list[_Ints]:
            return np.array_split(np.random.default_rng([seed, epoch]).permutation(len(indices)), n_batches)

        def gradients(rows: _Ints, step: int, budget: int) -> StepLoss:
            def loss(states: torch.Tensor, positions: _Ints) -> torch.Tensor:
                own = wanted[torch.from_numpy(rows[positions])]
                return binary_cross_entropy_with_logits(self(states), own, reduction="sum") / len(rows)

            value = learn_texts(
                accelerator,
                self.tower,
                source,
                indices[rows],
                loss,
                pooled=True,
                weight=1.0,
                token_budget=budget,
                seed=seed * 1_000_003 + step,
            )
            return StepLoss(value, {}, len(rows))

        return run_epochs(
            self,
            accelerator,
            batches=batches,
            gradients=gradients,
            start_validation=validate(),
            validate=validate,
            epochs=epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_share=WARMUP_SHARE,
            max_gradient_norm=1.0,
            token_budget=token_budget,
            patience=patience,
        )


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
    # As they go on from a prompt: LLaMA's tokenizer begins every text with a space, a token of its own.
    asked, *answered = (
        info.tokenizer(f"{QUESTION_END}{text}", add_special_tokens=False)["input_ids"]
        for text in ("", YES, NO)
    )
    tokens = [answer[len(asked)] for answer in answered if answer[: len(asked)] == asked]
    if len(set(tokens)) < 2:
        raise TowerError(f"{where}: the tokenizer has one token for {YES!r} and {NO!r}; use another backbone")
    config: Any = info.model.config
    bias = None
    if config.tie_word_embeddings:
        head: Any = info.embeddings.weight
    else:
        whole = AutoModelForCausalLM.from_pretrained(info.source.folder, dtype=torch.float32)
        head, bias = whole.get_output_embeddings().weight, whole.get_output_embeddings().bias
    if head.shape[1] != info.output_size:
        raise TowerError(
            f"{where}: the head is {head.shape[1]} wide and the states {info.output_size};"
            " use another backbone"
        )
    rows = head[tokens].detach().float().to(tower.device)
    biases = rows.new_zeros(2) if bias is None else bias[tokens].detach().float().to(tower.device)
    return YesNo(tower, rows, biases, soft_cap=getattr(config, "final_logit_softcapping", None))


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

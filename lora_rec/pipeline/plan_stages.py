"""The most memory that each stage of a run holds; see `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.dataset import Split
from lora_rec.data.examples import Examples
from lora_rec.pipeline import plan_memory as memory
from lora_rec.pipeline.data import Texts
from lora_rec.rank.linear import ENTRIES_AT_ONCE, MAX_RANK, has_all_factors
from lora_rec.recipe import HeadSection, Recipe
from lora_rec.text.collate import TokenizedTexts, plan_micro_batches
from lora_rec.train.item_item import EXACT_ITEMS
from lora_rec.train.losses import CATALOGUE_ROWS
from lora_rec.train.sequence import FULL_SOFTMAX_ITEMS, N_SAMPLED

SIMULATED_STEPS = 200  # of training, to see which sizes of micro-batches come up


@dataclass(frozen=True)
class TowerNeeds:
    """What one tower holds."""

    weights: int
    held: int
    """Weights, adapter, gradients and optimizer state."""
    activations: int
    file_bytes: int
    int8: int
    """Heap that products in 8 bit leave behind."""
    quantised: bool
    half: bool
    """Whether it multiplies in bf16."""
    kinds: int
    """Distinct shapes of linear modules."""
    hidden_size: int

    @property
    def left(self) -> int:
        """What loading leaves in the heap."""
        return memory.left_by_loading(self.file_bytes, quantised=self.quantised)


@dataclass(frozen=True)
class Sizes:
    """Micro-batches of one tower, each shape once: (rows, length)."""

    encoding: set[tuple[int, int]]
    training: set[tuple[int, int]]

    def kernels(self, kinds: int, *, trained: bool) -> memory.Kernels:
        """Counts the products that these shapes ask for; those of linear modules know tokens alone."""
        seen = self.encoding | self.training if trained else self.encoding
        taught = self.training if trained else set()
        return memory.Kernels(
            forward=kinds * len({rows * length for rows, length in seen}),
            backward=kinds * len({rows * length for rows, length in taught}),
            attention=len({length for _, length in taught}),
        )


def micro_batch_sizes(
    recipe: Recipe,
    examples: Examples,
    texts: Texts,
    users: TokenizedTexts,
    items: TokenizedTexts,
    read_items: TokenizedTexts,
) -> tuple[Sizes, Sizes]:
    """Gives the sizes for both towers; batches are random, so training sees others of the same kind."""
    section = recipe.train
    budget = section.token_budget
    of_users: set[tuple[int, int]] = set()
    of_items: set[tuple[int, int]] = set()
    n_batches = max(1, -(-len(examples) // section.batch_size))
    steps = [(epoch, step) for epoch in range(1, section.epochs + 1) for step in range(n_batches)]
    taken = np.unique(examples.targets.values)  # what nobody took is nobody's negative
    n_extra = min(section.extra_items, len(taken))
    order = np.arange(len(examples))
    for epoch, step in steps[:SIMULATED_STEPS]:
        if step == 0:
            order = np.random.default_rng([section.seed, epoch]).permutation(len(examples))
        rows = np.array_split(order, n_batches)[step]
        extra = np.random.default_rng([section.seed, step, epoch]).choice(taken, n_extra, replace=False)
        chosen = np.unique(np.concatenate([examples.targets.take(rows).values, extra]))
        of_users |= _shapes(users.lengths[np.unique(texts.example_texts[rows])], budget)
        of_items |= _shapes(items.lengths[chosen], budget)
    whole = _shapes(users.lengths, budget) | _shapes(read_items.lengths, budget)
    return Sizes(whole, of_users), Sizes(_shapes(items.lengths, budget), of_items)


def _shapes(lengths: NDArray[np.int64], budget: int) -> set[tuple[int, int]]:
    batches = plan_micro_batches(lengths, token_budget=budget)
    return {(len(rows), int(lengths[rows].max())) for rows in batches}


def cpu_stages(
    recipe: Recipe,
    split: Split,
    *,
    base: int,
    mapped: int,
    towers: Sequence[TowerNeeds],
    sizes: Sequence[Sizes],
) -> dict[str, int]:
    """Gives what the process holds at most in each stage on a CPU; freed heap is not given back.

    Args:
        recipe: of the run.
        split: of its data.
        base: the process before any model is loaded.
        mapped: bytes of the prefix caches, whose pages count as memory of the process.
        towers: the user tower's needs, then the item tower's.
        sizes: of the micro-batches, likewise.
    """
    loading, before = base, base
    for tower in towers:
        # Files are mapped and read into the weights; as they are where the type is the same.
        copied = 0 if abs(tower.file_bytes - tower.weights) < 0.1 * tower.weights else tower.file_bytes
        before += tower.weights + tower.left
        loading = max(loading, before + copied)
    held = base + sum(tower.held + tower.left for tower in towers)
    half = [(tower, size) for tower, size in zip(towers, sizes, strict=True) if tower.half]
    kernels = {
        trained: memory.kernel_memory(
            size.kernels(tower.kinds, trained=trained and tower.activations > 0) for tower, size in half
        )
        for trained in (False, True)
    }
    states = split.n_items * 4 * sum(tower.hidden_size + recipe.train.width for tower in towers)
    solving = 28 * split.n_items * max(tower.hidden_size for tower in towers)
    heap = int(memory.HEAP_FACTOR * sum(tower.activations for tower in towers))
    int8 = sum(tower.int8 for tower in towers)  # later stages use it again
    trained = held + max(int8, heap + kernels[True]) + mapped + states
    teaching, ranking, comparing = _ranking(
        recipe, split, text_width=recipe.train.width + towers[0].hidden_size
    )
    return {
        "load towers": loading,
        "EASE": max(loading, before + teaching),
        "encode": held + max(int8, kernels[False]) + mapped + states + solving,
        "train adapters": trained,
        "ranking head": trained + ranking,
        "compare": trained + comparing,
    }


def _ranking(recipe: Recipe, split: Split, *, text_width: int) -> tuple[int, int, int]:
    """Gives what fitting EASE, then the ranking head, then the comparison add to what is held."""
    n_users, n_items = split.n_users, split.n_items
    n_interactions = len(split.refit_histories().values)
    teaching, vectors, whole = _decomposing(n_users, n_users, n_items, n_interactions)
    exact = 4 * n_items * n_items
    if n_items <= EXACT_ITEMS:
        linear = exact
    else:
        with_texts, vectors_of_head, _ = _decomposing(n_users + text_width, n_users, n_items, n_interactions)
        linear = max(with_texts, 5 * vectors_of_head)
    ease = exact if not whole and n_items <= EXACT_ITEMS else max(teaching, 3 * vectors)
    cosine = exact if n_items <= EXACT_ITEMS else 0
    return max(teaching, 5 * vectors), max(linear, _sequence(recipe.head, n_items)), max(ease, cosine)


def _decomposing(n_rows: int, n_users: int, n_items: int, n_interactions: int) -> tuple[int, int, bool]:
    """Gives the bytes that decomposing takes, those of one set of factors, and whether these are all."""
    if whole := has_all_factors(n_rows, n_items, n_users=n_users):
        rank = min(n_rows, n_items)
        taken = 4 * n_rows * n_items + 24 * rank * rank
    else:
        rank = min(MAX_RANK, n_items)
        # The basis and its products; users, items, weights and their order; both products of a part.
        taken = 16 * n_items * rank + 48 * n_interactions + 8 * ENTRIES_AT_ONCE * rank
    return taken, 4 * n_items * rank, whole


def _sequence(section: HeadSection, n_items: int) -> int:
    """Gives what training the sequence part holds: item vectors seven times, states and logits of a step."""
    softmax = (
        4 * CATALOGUE_ROWS * n_items if n_items <= FULL_SOFTMAX_ITEMS else 16 * section.batch_size * N_SAMPLED
    )
    # Inputs, what is normalised, queries, keys, values, dense layers, and their dropout; then the attention.
    per_position = 24 * section.width + 4 * section.n_heads * (section.history_length + 1)
    states = 4 * section.n_blocks * section.batch_size * per_position
    return 4 * 7 * n_items * section.width + states + softmax


def gpu_stages(towers: Sequence[TowerNeeds]) -> dict[str, int]:
    """Gives what the towers hold at most on a GPU: weights and states of both, and activations.

    Those of both where a step fits into a micro-batch; what one needs beside them is freed after it.
    """
    held, activations = sum(tower.held for tower in towers), [tower.activations for tower in towers]
    return {
        "load towers": sum(tower.weights for tower in towers),
        "train adapters": held + sum(activations) + max(activations) // 2,
    }

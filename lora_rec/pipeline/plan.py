"""What a run will learn and need, told before anything trains: from configurations, never from weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn
from transformers import AutoTokenizer

from lora_rec.adapter_settings import FULL_PRECISION_ONLY, AdapterSettings
from lora_rec.errors import RecipeError, TowerError
from lora_rec.pipeline import plan_memory as memory
from lora_rec.pipeline import plan_stages as stages
from lora_rec.pipeline.data import prepare_data, prepare_texts
from lora_rec.pipeline.plan_activations import activation_memory, meta_model
from lora_rec.pipeline.plan_table import format_plan
from lora_rec.pipeline.starts import settings_of
from lora_rec.pipeline.variants import make_variants
from lora_rec.recipe import Recipe, TowerSection
from lora_rec.text.collate import TokenizedTexts, plan_micro_batches, tokenize
from lora_rec.towers.adapters import Attached, attach
from lora_rec.towers.backbone import read_config
from lora_rec.towers.layout import check_length, count_positions
from lora_rec.towers.precision import QUANTISED, Precision, default_device, resolve_precision
from lora_rec.towers.source import resolve_backbone, weight_bytes

__all__ = ["MemoryPlan", "Plan", "TowerPlan", "format_plan", "make_plan"]

PRECISIONS = ("fp32", "bf16", "8bit", "4bit")
FILE_OVERHEAD = 500  # an adapter's settings as JSON
TENSOR_OVERHEAD = 130  # one tensor's entry in a safetensors header


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes in memory of one tower in one precision."""

    precision: Precision
    """With the type in which it computes."""
    weights: int
    """Of the backbone."""
    adapter: int
    """Of the adapter, with the copy of its best state; fp32 in every precision."""
    gradients: int
    optimizer: int
    activations: int
    """Kept for the backward pass of the largest micro-batch."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class TowerPlan:
    """What one tower learns and needs."""

    name: str
    backbone: str
    adapter: str
    trained: int
    """Parameters that are learned: the adapter by gradient, the projection in closed form."""
    total: int
    chosen: MemoryPlan
    """In the recipe's precision."""
    by_precision: tuple[MemoryPlan, ...]
    """In every precision that the adapter works in."""
    n_texts: int
    n_tokens: int
    """Of distinct texts."""
    micro_batch: tuple[int, int]
    """Texts, and tokens of the longest, in the largest micro-batch."""
    cache_bytes: int
    """Size of the prefix cache on disk; 0 where there is none."""
    adapter_bytes: int
    """Size of the adapter's folder on disk."""
    file_bytes: int
    """Size of the weights on disk, which are mapped into memory while they are loaded."""
    kinds: int
    """Distinct shapes of linear modules."""
    linear_outputs: int
    """Widths of what all linear modules give, added."""
    hidden_size: int

    def needs(self) -> stages.TowerNeeds:
        """Gives what the peak of a run depends on."""
        rows, longest = self.micro_batch
        eight_bit = self.chosen.precision.name == "8bit"
        held = self.chosen.weights + self.chosen.adapter + self.chosen.gradients + self.chosen.optimizer
        return stages.TowerNeeds(
            held=held,
            int8=memory.int8_heap(rows * longest, self.linear_outputs) if eight_bit else 0,
            quantised=self.chosen.precision.name in QUANTISED,
            weights=self.chosen.weights,
            activations=self.chosen.activations,
            file_bytes=self.file_bytes,
            half=self.chosen.precision.multiplies_in_half,
            kinds=self.kinds,
            hidden_size=self.hidden_size,
        )

    @property
    def share(self) -> float:
        """Learned parameters over all."""
        return self.trained / self.total


@dataclass(frozen=True)
class Plan:
    """What a run learns and needs."""

    user_tower: TowerPlan
    item_tower: TowerPlan
    stages: dict[str, int]
    """Stage to the most memory that is held in it, on the device of the towers."""
    mapped: int
    """Of these, pages of the prefix cache: the system takes them back where memory is short."""
    device: str
    available: int
    """Memory of the device."""

    @property
    def peak(self) -> int:
        """The most memory that the run holds at a time."""
        return max(self.stages.values())

    @property
    def fits(self) -> bool:
        """Whether the device has what cannot be given back."""
        return self.peak - self.mapped <= self.available


def make_plan(recipe: Recipe) -> Plan:
    """Plans a run from its data, the tokenizers and the configurations; weights are not read.

    Translated variants of texts are not counted: a model has to write them first.

    Raises:
        LoraRecError: what the run itself would refuse of data, backbones and adapters.
    """
    dataset, split = prepare_data(recipe.data)
    examples, texts = prepare_texts(recipe, dataset, split)
    base = memory.process_memory()  # by now this process has imported what the run imports
    users = _tokens(recipe.user_tower, "user_tower", texts.users)
    read_items = _tokens(recipe.user_tower, "user_tower", texts.items)
    items = _tokens(recipe.item_tower, "item_tower", texts.items)

    def varied(name: str, own: Sequence[str]) -> list[TokenizedTexts]:
        return [_tokens(getattr(recipe, name), name, v) for v in make_variants(recipe.regularisation, own)]

    user_variants = varied("user_tower", [texts.users[number] for number in texts.trained])
    user_tower = _plan_tower(recipe, "user_tower", [users, read_items, *user_variants])
    item_tower = _plan_tower(recipe, "item_tower", [items, *varied("item_tower", texts.items)])
    towers, device = (user_tower, item_tower), default_device()
    if device.type == "cuda":
        needed, mapped = stages.gpu_stages([tower.needs() for tower in towers]), 0
    else:
        seen = stages.micro_batch_sizes(recipe, examples, texts, users, items, read_items)
        mapped = sum(tower.cache_bytes for tower in towers)
        needed = stages.cpu_stages(
            recipe, split, base=base, mapped=mapped, towers=[tower.needs() for tower in towers], sizes=seen
        )
    return Plan(user_tower, item_tower, needed, mapped, device.type, memory.machine_memory(device))


def _tokens(section: TowerSection, where: str, texts: Sequence[str]) -> TokenizedTexts:
    source = resolve_backbone(section.backbone, revision=section.revision, where=f"{where}.backbone")
    return tokenize(AutoTokenizer.from_pretrained(source.folder), texts, max_tokens=section.max_tokens)


def _plan_tower(recipe: Recipe, name: str, parts: Sequence[TokenizedTexts]) -> TowerPlan:
    section: TowerSection = getattr(recipe, name)
    source = resolve_backbone(section.backbone, revision=section.revision, where=f"{name}.backbone")
    config, _ = read_config(source, name=section.backbone, where=name)
    settings = settings_of(section, base_model_id=source.base_model_id, where=name)
    precisions = _precisions(section, settings, n_bytes=weight_bytes(source.folder))
    bare = meta_model(config, precisions[0])
    linear, n_backbone = memory.linear_parts(bare), sum(p.numel() for p in bare.parameters())
    n_positions = count_positions(bare)
    attached = _attach(bare, settings, trained_layers=section.trained_layers, where=name)
    learned = sum(p.numel() for p in attached.trained_parameters().values())
    total = sum(p.numel() for p in attached.model.parameters())
    total += learned * (_joined(settings) - 1)
    rows, longest = _largest(parts, token_budget=recipe.train.token_budget)
    n_tokens = max(int(part.lengths.max(initial=0)) for part in parts)
    check_length(n_tokens, n_positions, n_virtual=settings.n_virtual, where=name)

    def measure(precision: Precision) -> MemoryPlan:
        model = meta_model(config, precision)
        weights = memory.weight_memory(model, precision=precision.name, compute=precision.compute)
        activations = activation_memory(
            model,
            _attach(model, settings, trained_layers=section.trained_layers, where=name),
            rows=rows,
            length=longest,
            device=default_device(),
        )
        # The best state of the adapter is kept beside the present one.
        adapter = 4 * (total - n_backbone + learned)
        return MemoryPlan(precision, weights, adapter, 4 * learned, 8 * learned, activations)

    hidden_size = int(getattr(config, "word_embed_proj_dim", config.hidden_size))
    projection = recipe.train.width * (hidden_size + 1)
    n_texts, n_tokens = _count_distinct(parts)
    cached = recipe.train.prefix_cache and attached.first_layer > 0
    return TowerPlan(
        name=name,
        backbone=section.backbone,
        adapter=settings.adapter,
        trained=learned + projection,
        total=total + projection,
        chosen=measure(precisions[0]),
        by_precision=tuple(_where_it_works(measure, precisions[1:])),
        n_texts=n_texts,
        n_tokens=n_tokens,
        micro_batch=(rows, longest),
        cache_bytes=2 * int(config.hidden_size) * n_tokens if cached else 0,
        adapter_bytes=_adapter_bytes(attached, settings),
        file_bytes=memory.file_bytes(source.folder),
        kinds=len(set(linear)),
        linear_outputs=sum(width for _, width in linear),
        hidden_size=hidden_size,
    )


def _precisions(section: TowerSection, settings: AdapterSettings, *, n_bytes: int) -> list[Precision]:
    """Gives the tower's own precision, then every one that its adapter works in."""
    own = section.precision
    if own == "auto" and settings.adapter in FULL_PRECISION_ONLY:
        own = "fp32"
    names = (own, *(name for name in PRECISIONS if _works_in(section, name)))
    device = default_device()
    chosen, *others = (resolve_precision(n, section.compute, n_bytes=n_bytes, device=device) for n in names)
    # What `auto` makes of a name is shown under it.
    return [chosen, *(chosen if other.name == chosen.name else other for other in others)]


def _where_it_works(
    measure: Callable[[Precision], MemoryPlan], precisions: Sequence[Precision]
) -> Iterator[MemoryPlan]:
    for precision in precisions:
        # Some adapters meet a type of this model that they would have to train in half precision.
        with contextlib.suppress(TowerError):
            yield measure(precision)


def _works_in(section: TowerSection, precision: str) -> bool:
    try:
        section.adapter_settings(precision=precision)
    except RecipeError:
        return False
    return True


def _attach(
    bare: nn.Module, settings: AdapterSettings, *, trained_layers: int | None, where: str
) -> Attached:
    if settings.adapter == "lora":
        # The starts decompose weights, which are not here; the tensors are those of a plain LoRA.
        settings = replace(settings, values={**settings.values, "lora_start": "zero"})
    return attach(bare, settings, trained_layers=trained_layers, where=where)


def _joined(settings: AdapterSettings) -> int:
    """Says how many LoRAs lie on each module: PiSSA and OLoRA have a frozen counterpart."""
    return 2 if settings.adapter == "lora" and settings["lora_start"] in ("pissa", "olora") else 1


def _adapter_bytes(attached: Attached, settings: AdapterSettings) -> int:
    """Gives the size of what `save_adapter` writes: AdaLoRA at its target rank, counterparts joined."""
    if settings.adapter == "none":
        return 0
    sizes: dict[str, float] = {n: p.numel() for n, p in attached.trained_parameters().items()}
    if settings.adapter == "adalora":
        left = settings["target_rank"] / settings["init_rank"]
        sizes = {n: size * left for n, size in sizes.items() if ".lora_A" in n or ".lora_B" in n}
    if settings.adapter == "vera":  # its random projections are saved too
        sizes |= {n: b.numel() for n, b in attached.model.named_buffers() if ".vera_A" in n or ".vera_B" in n}
    return int(4 * _joined(settings) * sum(sizes.values())) + FILE_OVERHEAD + TENSOR_OVERHEAD * len(sizes)


def _largest(parts: Sequence[TokenizedTexts], *, token_budget: int) -> tuple[int, int]:
    """Gives rows and length of the largest micro-batch of all."""
    shapes = [
        (len(rows), int(part.lengths[rows].max()))
        for part in parts
        for rows in plan_micro_batches(part.lengths, token_budget=token_budget)
    ]
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def _count_distinct(parts: Sequence[TokenizedTexts]) -> tuple[int, int]:
    """Counts the texts that the cache would tell apart, and their tokens."""
    lengths = {part[i].tobytes(): len(part[i]) for part in parts for i in range(len(part))}
    return len(lengths), sum(lengths.values())

"""A plan as a table for the terminal; see `plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_rec.pipeline.plan import Plan, TowerPlan


def format_plan(plan: Plan) -> str:
    """Writes a plan as a table for the terminal."""
    lines = []
    for tower in (plan.user_tower, plan.item_tower):
        rows, longest = tower.micro_batch
        lines += [
            f"{tower.name}: {tower.backbone}, adapter {tower.adapter}",
            f"  learned      {tower.trained:,} of {tower.total:,} parameters ({tower.share:.2%})",
            f"  reads        {tower.n_texts:,} texts, {tower.n_tokens:,} tokens;"
            f" largest micro-batch {rows} x {longest}",
            f"  on disk      prefix cache {_size(tower.cache_bytes)}, adapter {_size(tower.adapter_bytes)}",
            *_memory_table(tower),
            "",
        ]
    lines.append("memory of the " + ("GPU" if plan.device == "cuda" else "process") + " at most")
    width = max(map(len, plan.stages))
    lines += [f"  {name:<{width}} {_size(needed):>9}" for name, needed in plan.stages.items()]
    return "\n".join([*lines, _verdict(plan)])


def _memory_table(tower: TowerPlan) -> list[str]:
    columns = ("weights", "adapter", "gradients", "optimizer", "activations", "total")
    lines = ["  in memory    " + "".join(f"{column:>13}" for column in columns)]
    for part in tower.by_precision:
        mark = "*" if part.precision == tower.chosen.precision else " "
        name = f"  {part.precision.name:<5} {mark}"
        lines.append(f"{name:<15}" + "".join(f"{_size(getattr(part, column)):>13}" for column in columns))
    return lines


def _verdict(plan: Plan) -> str:
    where = "this GPU" if plan.device == "cuda" else "this machine"
    stage = max(plan.stages, key=lambda name: plan.stages[name])
    said = f"peak memory: about {_size(plan.peak)} ({stage}); {where} has {_size(plan.available)}: "
    if plan.mapped:
        said += f"{_size(plan.mapped)} of it are pages of the prefix cache, taken back when short; "
    return said + ("it fits" if plan.fits else "it does not fit; try " + ", ".join(_remedies(plan)))


def _remedies(plan: Plan) -> list[str]:
    """Gives what would help, the most first: by what the peak is made of."""
    found: list[tuple[int, str]] = []
    for tower in (plan.user_tower, plan.item_tower):
        leanest = min(tower.by_precision, key=lambda part: part.weights)
        gain = tower.chosen.weights - leanest.weights
        found.append((gain, f"{tower.name}.precision={leanest.precision.name}"))
    activations = sum(tower.chosen.activations for tower in (plan.user_tower, plan.item_tower))
    found.append((activations, "a smaller train.token_budget"))
    trained = plan.stages["train adapters"]
    found.append(
        (plan.peak - trained, "data.min_rating or fewer users and items: the ranking stages grow with both")
    )
    return [text for gain, text in sorted(found, reverse=True) if gain > 0.02 * plan.peak] or [
        "a larger machine"
    ]


def _size(n_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{n_bytes} B"

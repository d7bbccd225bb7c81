"""Which adapter a tower's section asks for: one from its settings, or one that was learned before."""

from __future__ import annotations

from pathlib import Path

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.hub.adapter import find_adapter
from lora_rec.tower_section import TowerSection
from lora_rec.towers.adapters import read_lora_settings


def find_start(section: TowerSection) -> Path | None:
    """Gives the folder of the adapter that a tower starts from; None where it starts anew."""
    if section.start_from is None:
        return None
    return find_adapter(section.start_from, revision=section.start_revision)


def settings_of(
    section: TowerSection, *, base_model_id: str, where: str, precision: str | None = None
) -> AdapterSettings:
    """Gives the adapter's settings: those of the recipe, or of what it starts from.

    Args:
        section: of the tower.
        base_model_id: of its backbone.
        where: named in errors.
        precision: what `auto` has become, once that is known.
    """
    start = find_start(section)
    if start is None:
        return section.adapter_settings(precision=precision, where=where)
    ratio = section.lora_plus_ratio
    return read_lora_settings(
        start,
        base_model_id=base_model_id,
        lora_plus_ratio=ratio,
        precision=precision or section.precision,
        where=where,
    )

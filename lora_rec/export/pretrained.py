"""The folder of an adapter that was trained without labels: plain peft, and what was done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_rec.bundle import PRETRAINED, check_output, write_folder
from lora_rec.errors import BundleError
from lora_rec.towers.adapters import save_adapter
from lora_rec.towers.source import PACKAGE_PREFIX
from lora_rec.towers.two_tower import Tower

FORMAT = 1


def check_place(output: str | Path) -> Path:
    """Checks, before a run, that its adapter can be written there; see `bundle.check_output`."""
    return check_output(output, marker=PRETRAINED, what="adapter of recipes/pretrain.py")


def write_pretrained(
    output: str | Path,
    tower: Tower,
    facts: Mapping[str, Any],
    *,
    recipe: str,
    backbone: str,
    trained_layers: int | None,
) -> Path:
    """Writes the adapter whole or not at all.

    Args:
        output: folder of the result.
        tower: trained.
        facts: what was done.
        recipe: as YAML, without paths of this machine.
        backbone: as the recipe names it; a folder is known by its name and fingerprint alone.
        trained_layers: of the tower's section.
    """
    info = tower.backbone_info
    source = info.source
    quantised = info.precision.name != info.precision.compute
    described = {
        "format": FORMAT,
        "backbone": backbone if backbone.startswith(PACKAGE_PREFIX) else source.base_model_id,
        "base_model_id": source.base_model_id,
        "revision": source.revision,
        "fingerprint": info.fingerprint,
        "kind": info.kind,
        "precision": info.precision.name,
        "compute": info.precision.compute if quantised else None,
        "adapter": tower.adapter.settings.adapter,
        "adapter_settings": dict(tower.adapter.settings.values),
        "trained_layers": trained_layers,
    }

    def fill(folder: Path) -> None:
        save_adapter(tower.adapter, folder, base_model_id=source.base_model_id, revision=source.revision)
        text = json.dumps(described | dict(facts), indent=2) + "\n"
        (folder / PRETRAINED).write_text(text, encoding="utf-8")
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")

    return write_folder(check_place(output), fill)


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Reads what `write_pretrained` wrote of an adapter.

    Raises:
        BundleError: there is none, it is damaged, or of another version.
    """
    file = Path(folder) / PRETRAINED
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: does not read ({error}); train the adapter anew") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise BundleError(f"{file}: of another version (format {found}, not {FORMAT}); train it anew")
    return facts

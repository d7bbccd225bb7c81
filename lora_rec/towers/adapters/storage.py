"""Adapters on disk: folders that plain peft loads, wherever peft has such an adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lora_rec.adapter_settings import AdapterSettings
from lora_rec.errors import BundleError, TowerError
from lora_rec.towers.adapters.attach import TASK, Attached, keep_compute_type
from lora_rec.towers.adapters.bottleneck import load_bottlenecks, save_bottlenecks
from lora_rec.towers.adapters.counter import COUNTER, lora_layers

_SETS = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters")
FULL_FILE = "full.safetensors"


def save_adapter(attached: Attached, folder: Path, *, base_model_id: str, revision: str | None) -> None:
    """Writes an adapter's folder.

    AdaLoRA and the starts that take something out of the weights are written as a plain LoRA that gives the
    same vectors. The base is named by its Hub id, never by a local path.
    """
    name = attached.settings.adapter
    if name == "bottleneck":
        save_bottlenecks(attached.model, folder)
        return
    if name == "full":
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {n: p.detach().cpu().contiguous() for n, p in attached.trained_parameters().items()}
        save_file(tensors, str(folder / FULL_FILE))
        return
    model: Any = attached.model
    if name == "adalora" or COUNTER in model.peft_config:
        config, tensors = to_plain_lora(model)
        config.base_model_name_or_path = base_model_id
        config.save_pretrained(str(folder))
        save_file(tensors, str(folder / "adapter_model.safetensors"))
    else:
        model.save_pretrained(str(folder), save_embedding_layers=False)
    file = folder / "adapter_config.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    written |= {"base_model_name_or_path": base_model_id, "revision": revision, "inference_mode": True}
    # peft writes sets in the order of their hashes, which differs between runs.
    written |= {n: sorted(v) for n, v in written.items() if n in _SETS and isinstance(v, list)}
    if "init_lora_weights" in written:
        written["init_lora_weights"] = True  # whoever loads this has the weights, not a start
        written.pop("eva_config", None)
    file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # peft's card repeats the local path; the bundle has its own.
    (folder / "README.md").unlink(missing_ok=True)


@torch.no_grad()
def to_plain_lora(
    model: nn.Module, weights: Mapping[str, float] | None = None
) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Rewrites LoRAs or an AdaLoRA of a model as one plain LoRA of the ranks that are left.

    For each module the update sum_i weight_i * scaling_i * B_i A_i (AdaLoRA: B diag(E) A, without the
    directions that allocation has set to zero) becomes B A with scaling 1; modules without a rank left carry
    no adapter.

    Args:
        model: a `PeftModel`.
        weights: adapters by name; the active ones, with weight 1, when left out.

    Returns:
        The settings, and the tensors by the names that peft gives them.

    Raises:
        TowerError: no module has a rank left.
    """
    ranks: dict[str, int] = {}
    tensors: dict[str, torch.Tensor] = {}
    transposed = False
    for path, layer in lora_layers(model).items():
        ups, downs = [], []
        for name, weight in (weights or dict.fromkeys(layer.active_adapters, 1.0)).items():
            if name not in layer.lora_A:
                continue
            up, down = _factors(layer, name)
            ups.append(up * weight)
            downs.append(down)
        if not ups:
            continue
        up, down = torch.cat(ups, dim=1), torch.cat(downs, dim=0)
        transposed |= bool(getattr(layer, "fan_in_fan_out", False))  # quantised layers have none
        if down.shape[0] == 0:
            continue
        ranks[path] = down.shape[0]
        stem = f"base_model.model.{path}"
        tensors[f"{stem}.lora_A.weight"] = down.cpu().contiguous()
        tensors[f"{stem}.lora_B.weight"] = up.cpu().contiguous()
    if not ranks:
        raise TowerError("adapter: no module has a rank left, so there is nothing to write; train longer")
    largest = max(ranks.values())
    # peft reads a pattern's key as the end of a path; the whole path names one module alone.
    pattern = {path: rank for path, rank in ranks.items() if rank != largest}
    config = LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=sorted(ranks),
        fan_in_fan_out=transposed,
        task_type=TASK,
    )
    return config, tensors


def _factors(layer: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives B with the scaling in it (out, r) and A (r, in) of one adapter in one module."""
    if name in layer.lora_magnitude_vector:
        raise TowerError("adapter: a DoRA is not a sum of factors, so it cannot be mixed; mix plain LoRAs")
    scaling = layer.scaling[name]
    if not hasattr(layer, "lora_E"):
        return layer.lora_B[name].weight.float() * scaling, layer.lora_A[name].weight.float()
    values = layer.lora_E[name][:, 0].float()
    kept = values != 0
    factor = scaling / (layer.ranknum[name].float() + 1e-5)
    return layer.lora_B[name].float()[:, kept] * factor, layer.lora_A[name].float()[kept] * values[kept, None]


def load_adapter(
    model: nn.Module, folder: Path, settings: AdapterSettings, *, first_layer: int, where: str
) -> Attached:
    """Puts a saved adapter on its backbone, frozen."""
    name = settings.adapter
    if name == "none":
        return Attached(settings, model, first_layer)
    if name == "bottleneck":
        load_bottlenecks(model, folder, where=where)
        model.requires_grad_(False)
        return Attached(settings, model, first_layer)
    if name == "full":
        unknown = model.load_state_dict(load_file(str(folder / FULL_FILE)), strict=False).unexpected_keys
        if unknown:
            raise TowerError(
                f"{where}: the backbone has no tensor {unknown[0]}; give the one it was trained on"
            )
        return Attached(settings, model, first_layer)
    under = open_saved(model, folder, is_trainable=False, where=where)
    keep_compute_type(under)
    return Attached(settings, under, first_layer)


def open_saved(model: nn.Module, folder: Path, *, is_trainable: bool, where: str) -> PeftModel:
    """Puts what peft has saved on its backbone.

    Raises:
        BundleError: it does not fit, or not all of it is there.
    """
    try:
        under = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)  # type: ignore[arg-type]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise BundleError(
            f"{where}: the saved adapter does not load ({reason}); get the bundle again"
        ) from error
    check_tensors(under, folder, "default", where=where)
    return under


def check_tensors(model: nn.Module, folder: Path, name: str, *, where: str) -> None:
    """Compares the names of the saved tensors with those of the adapter that peft has built.

    peft loads what it finds, leaves the rest at its start, and at most warns.

    Raises:
        BundleError: tensors are missing, or are named for modules that are not there.
    """
    with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as file:
        saved = set(file.keys())
    built = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))  # type: ignore[arg-type]
    missing, unknown = sorted(built - saved), sorted(saved - built)
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, for which there is no module"
        raise BundleError(f"{where}: the saved adapter {what}; get the bundle again")

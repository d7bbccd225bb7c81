"""Encodes titles as two peers do, in turns; called by speed_encode.py.

`sentence_transformers` is `SentenceTransformer.encode` as it comes, `onnx_int8` the same model through
onnxruntime with weights and activations in 8 bit (dynamic quantisation), batches sorted by length.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stepwise import Turns

BATCH = 32
MAX_TOKENS = 128
Encode = Callable[[list[str]], NDArray[np.float32]]


def sentence_encoder(backbone: str, device: str) -> Encode:
    """Gives the library's own function."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(backbone, device=device)
    model.max_seq_length = MAX_TOKENS
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def onnx_encoder(backbone: str, device: str) -> Encode:
    """Exports the model, quantises it and gives a function over a session of onnxruntime, on the CPU."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel, AutoTokenizer

    class States(torch.nn.Module):
        """The model with inputs by position, as an export wants them."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            """Gives the last states."""
            found = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
            return found.last_hidden_state

    tokenizer = AutoTokenizer.from_pretrained(backbone)
    model = AutoModel.from_pretrained(backbone, attn_implementation="eager").eval()
    given = tokenizer(["one text", "another, longer text"], padding=True, return_tensors="pt")
    names = ("input_ids", "attention_mask", "token_type_ids")
    with tempfile.TemporaryDirectory() as folder:
        whole, small = f"{folder}/whole.onnx", f"{folder}/int8.onnx"
        axes = {name: {0: "batch", 1: "length"} for name in names}
        torch.onnx.export(
            States(),
            tuple(given[name] for name in names),
            whole,
            input_names=list(names),
            output_names=["states"],
            dynamic_axes={**axes, "states": {0: "batch", 1: "length"}},
            dynamo=False,
        )
        quantize_dynamic(whole, small, weight_type=QuantType.QInt8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])

    def encode(texts: list[str]) -> NDArray[np.float32]:
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            tokens = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="np",
            )
            (states,) = session.run(["states"], {name: tokens[name].astype(np.int64) for name in names})
            mask = tokens["attention_mask"][:, :, None]
            means = (states * mask).sum(axis=1) / mask.sum(axis=1)
            vectors[rows] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return vectors

    return encode


def main() -> None:
    """Encodes again and again, in turns; the vectors of the first pass are written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    encoders = {"sentence_transformers": sentence_encoder, "onnx_int8": onnx_encoder}
    parser.add_argument("system", choices=tuple(encoders))
    parser.add_argument("titles", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    turns = Turns(cuda=arguments.device == "cuda")
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    texts = json.loads(arguments.titles.read_text(encoding="utf-8"))
    encode = encoders[arguments.system](arguments.backbone, arguments.device)
    turns.begin()
    while True:
        vectors = encode(texts)
        if not arguments.output.exists():
            np.save(arguments.output, vectors)
        turns.end(len(texts))


if __name__ == "__main__":
    main()

"""A 1B-class decoder with random weights in bf16, 8 and 4 bit on a CUDA device: memory and time of a step.

The model is built from its configuration (Llama 3.2 1B's shape) and written once, so that 8 and 4 bit load it
as any other. Quality means nothing here; absolute times and memory are those of the device in the header.

python benchmarks/gpu_precisions.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rows import header_of, row, write_rows

from lora_rec.pipeline.towers import build_tower
from lora_rec.recipe import TowerSection
from lora_rec.text.collate import TokenBatch

PRECISIONS = ("bf16", "8bit", "4bit")
BATCH, LENGTH = 64, 64


def write_model(folder: Path) -> None:
    """Writes a random 1B-class Llama in bf16, with a tokenizer that is never used on text."""
    from tokenizers import Tokenizer, models
    from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
    )
    with torch.device("cuda"):
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>").save_pretrained(
        folder
    )


def measure(folder: Path, precision: str, *, trained_layers: int | None, n_steps: int) -> dict[str, Any]:
    """Loads the model and times encoding and optimizer steps, the first two left out."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    section = TowerSection(backbone=str(folder), precision=precision, trained_layers=trained_layers)  # type: ignore[arg-type]
    tower = build_tower(section, width=128, where="item_tower", device="cuda")
    weights = torch.cuda.memory_allocated() / 1e9
    optimizer = torch.optim.AdamW(tower.trained_parameters().values(), lr=1e-3)
    ids = torch.randint(0, 128_256, (BATCH, LENGTH), device="cuda")
    batch = TokenBatch(torch.ones_like(ids), input_ids=ids)
    encoding, steps = [], []
    for _ in range(n_steps + 2):
        with torch.no_grad():
            encoding.append(_timed(lambda: tower(batch)))
        steps.append(_timed(lambda: _step(tower, batch, optimizer)))
    return {
        "weights_gb": [weights],
        "peak_gb": [torch.cuda.max_memory_allocated() / 1e9],
        "encode_ms": [1e3 * statistics.median(encoding[2:])],
        "step_ms": [1e3 * statistics.median(steps[2:])],
    }


def _step(tower: Any, batch: TokenBatch, optimizer: torch.optim.Optimizer) -> None:
    tower(batch)[:, 0].sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _timed(run: Any) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Parses the command line and writes benchmarks/results/gpu_precisions.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_precisions: skipped, no CUDA device on this machine; nothing was written")
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "llama-1b-random"
        write_model(folder)
        for layers, name in ((4, "last 4 layers"), (None, "every layer")):
            for precision in PRECISIONS:
                numbers = measure(folder, precision, trained_layers=layers, n_steps=arguments.steps)
                for metric, values in numbers.items():
                    unit = "GB" if metric.endswith("gb") else "ms"
                    case = f"{precision}, lora on {name}"
                    rows.append(row("gpu_precisions", case, "lora_rec", metric, values, unit=unit))
    write_rows("gpu_precisions", header_of("gpu_precisions", "python benchmarks/gpu_precisions.py"), rows)


if __name__ == "__main__":
    main()

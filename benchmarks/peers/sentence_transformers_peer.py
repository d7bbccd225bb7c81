"""Fine-tunes MiniLM with peft on pairs of texts; called by quality_sentences.py.

The steps and settings are those of sentence-transformers' own example, but for what is chosen on validation
and for the batch, which fits two slow cores:
https://github.com/huggingface/sentence-transformers/blob/01ef46a0f500b14e4e2b22f637ff92f1dce8499a/examples/sentence_transformer/training/peft/training_gooaq_lora.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from peft import LoraConfig, TaskType
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import set_seed

BATCH = 64
MAX_TOKENS = 64


def fine_tune(
    backbone: str, texts: list[str], pairs: NDArray[np.int64], settings: dict[str, float], *, seed: int
) -> SentenceTransformer:
    """Gives the model after training.

    Args:
        backbone: folder of a SentenceTransformer.
        texts: one per item.
        pairs: (P, 2), items whose texts belong together.
        settings: `learning_rate`, `steps` of a batch of pairs, and `lora_rank`.
        seed: of the adapter's start and the order of the pairs.
    """
    set_seed(seed)
    model = SentenceTransformer(backbone)
    model.max_seq_length = MAX_TOKENS
    rank = int(settings["lora_rank"])
    model.add_adapter(
        LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            inference_mode=False,
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.1,
        )
    )
    columns = zip(("anchor", "positive"), pairs.T.tolist(), strict=True)
    data = Dataset.from_dict({name: [texts[item] for item in items] for name, items in columns})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=int(settings["steps"]),
            per_device_train_batch_size=BATCH,
            learning_rate=settings["learning_rate"],
            warmup_steps=0.1,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),  # or bf16 is refused
            # Every text once in a batch: a popular item's copy would be pushed away as a negative.
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    return model


def main() -> None:
    """Parses the command line, trains, and writes the vectors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", type=Path, required=True, help=".npz with `texts` and `pairs`")
    parser.add_argument("--output", type=Path, required=True, help=".npy to write: unit vectors of the texts")
    parser.add_argument("--backbone", required=True, help="folder of a SentenceTransformer")
    parser.add_argument("--settings", type=json.loads, required=True, help="see fine_tune, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with np.load(arguments.task) as arrays:
        texts, pairs = arrays["texts"].tolist(), arrays["pairs"]
    model = fine_tune(arguments.backbone, texts, pairs, arguments.settings, seed=arguments.seed)
    vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.save(arguments.output, np.asarray(vectors, dtype=np.float32))


if __name__ == "__main__":
    main()

"""Metrics of recommended lists, in numpy alone: relevance, diversity, and the report of both."""

from lora_rec.metrics.diversity import coverage_at_k, ild_at_k, novelty_at_k
from lora_rec.metrics.evaluate_modules import evaluate_module
from lora_rec.metrics.impressions import impression_auc
from lora_rec.metrics.lists import pad_lists
from lora_rec.metrics.relevance import hit_rate_at_k, mrr_at_k, ndcg_at_k, recall_at_k
from lora_rec.metrics.report import (
    PairedDifference,
    bootstrap_interval,
    evaluate_lists,
    format_table,
    mean_over_users,
    paired_difference,
)

__all__ = [
    "PairedDifference",
    "bootstrap_interval",
    "coverage_at_k",
    "evaluate_lists",
    "evaluate_module",
    "format_table",
    "hit_rate_at_k",
    "ild_at_k",
    "impression_auc",
    "mean_over_users",
    "mrr_at_k",
    "ndcg_at_k",
    "novelty_at_k",
    "pad_lists",
    "paired_difference",
    "recall_at_k",
]

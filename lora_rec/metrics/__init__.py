"""Metrics of recommended lists, in numpy alone: relevance, diversity, popularity, and how sure they are."""

from lora_rec.metrics.calibration import auc, expected_calibration_error
from lora_rec.metrics.catalogue import (
    coverage_at_k,
    exposure_entropy_at_k,
    gini_at_k,
    personalization_at_k,
)
from lora_rec.metrics.categories import (
    calibration_error_at_k,
    category_coverage_at_k,
    category_entropy_at_k,
    category_ild_at_k,
)
from lora_rec.metrics.diversity import ild_at_k, ild_min_at_k
from lora_rec.metrics.evaluate_modules import evaluate_module
from lora_rec.metrics.impressions import impression_auc
from lora_rec.metrics.lists import pad_lists
from lora_rec.metrics.popularity import (
    new_items_at_k,
    novelty_at_k,
    popularity_at_k,
    popularity_lift_at_k,
    serendipity_at_k,
)
from lora_rec.metrics.relevance import hit_rate_at_k, mrr_at_k, ndcg_at_k, recall_at_k
from lora_rec.metrics.report import evaluate_lists, format_table
from lora_rec.metrics.significance import (
    PairedDifference,
    bootstrap_interval,
    holm_adjusted,
    mean_over_users,
    paired_difference,
    sign_flip_test,
)

__all__ = [
    "PairedDifference",
    "auc",
    "bootstrap_interval",
    "calibration_error_at_k",
    "category_coverage_at_k",
    "category_entropy_at_k",
    "category_ild_at_k",
    "coverage_at_k",
    "evaluate_lists",
    "evaluate_module",
    "expected_calibration_error",
    "exposure_entropy_at_k",
    "format_table",
    "gini_at_k",
    "hit_rate_at_k",
    "holm_adjusted",
    "ild_at_k",
    "ild_min_at_k",
    "impression_auc",
    "mean_over_users",
    "mrr_at_k",
    "ndcg_at_k",
    "new_items_at_k",
    "novelty_at_k",
    "pad_lists",
    "paired_difference",
    "personalization_at_k",
    "popularity_at_k",
    "popularity_lift_at_k",
    "recall_at_k",
    "serendipity_at_k",
    "sign_flip_test",
]

"""`category_coverage@k` for `evaluate.load`: see `lora_rec.metrics.category_coverage_at_k`."""

from lora_rec.metrics import category_coverage_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

CategoryCoverageAtK = metric_class(category_coverage_at_k)

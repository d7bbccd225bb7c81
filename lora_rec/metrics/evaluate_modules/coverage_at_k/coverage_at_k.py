"""`coverage@k` for `evaluate.load`: see `lora_rec.metrics.coverage_at_k`."""

from lora_rec.metrics import coverage_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

CoverageAtK = metric_class(coverage_at_k)

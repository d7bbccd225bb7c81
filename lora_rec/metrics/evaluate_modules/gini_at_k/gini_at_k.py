"""`gini@k` for `evaluate.load`: see `lora_rec.metrics.gini_at_k`."""

from lora_rec.metrics import gini_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

GiniAtK = metric_class(gini_at_k)

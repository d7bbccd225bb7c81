"""`mrr@k` for `evaluate.load`: see `lora_rec.metrics.mrr_at_k`."""

from lora_rec.metrics import mrr_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

MrrAtK = metric_class(mrr_at_k)

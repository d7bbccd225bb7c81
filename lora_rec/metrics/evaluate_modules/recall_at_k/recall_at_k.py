"""`recall@k` for `evaluate.load`: see `lora_rec.metrics.recall_at_k`."""

from lora_rec.metrics import recall_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

RecallAtK = metric_class(recall_at_k)

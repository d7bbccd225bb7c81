"""`ild_min@k` for `evaluate.load`: see `lora_rec.metrics.ild_min_at_k`."""

from lora_rec.metrics import ild_min_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

IldMinAtK = metric_class(ild_min_at_k)

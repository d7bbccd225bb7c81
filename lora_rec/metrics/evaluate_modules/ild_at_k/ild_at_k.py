"""`ild@k` for `evaluate.load`: see `lora_rec.metrics.ild_at_k`."""

from lora_rec.metrics import ild_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

IldAtK = metric_class(ild_at_k)

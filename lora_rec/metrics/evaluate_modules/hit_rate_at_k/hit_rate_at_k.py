"""`hit_rate@k` for `evaluate.load`: see `lora_rec.metrics.hit_rate_at_k`."""

from lora_rec.metrics import hit_rate_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

HitRateAtK = metric_class(hit_rate_at_k)

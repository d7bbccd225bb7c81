"""`popularity_lift@k` for `evaluate.load`: see `lora_rec.metrics.popularity_lift_at_k`."""

from lora_rec.metrics import popularity_lift_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

PopularityLiftAtK = metric_class(popularity_lift_at_k)

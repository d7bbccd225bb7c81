"""`popularity@k` for `evaluate.load`: see `lora_rec.metrics.popularity_at_k`."""

from lora_rec.metrics import popularity_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

PopularityAtK = metric_class(popularity_at_k)

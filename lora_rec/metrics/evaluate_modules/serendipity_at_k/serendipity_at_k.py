"""`serendipity@k` for `evaluate.load`: see `lora_rec.metrics.serendipity_at_k`."""

from lora_rec.metrics import serendipity_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

SerendipityAtK = metric_class(serendipity_at_k)

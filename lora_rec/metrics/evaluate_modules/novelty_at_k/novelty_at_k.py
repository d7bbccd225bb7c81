"""`novelty@k` for `evaluate.load`: see `lora_rec.metrics.novelty_at_k`."""

from lora_rec.metrics import novelty_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

NoveltyAtK = metric_class(novelty_at_k)

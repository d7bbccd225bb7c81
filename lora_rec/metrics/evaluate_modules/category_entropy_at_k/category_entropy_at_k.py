"""`category_entropy@k` for `evaluate.load`: see `lora_rec.metrics.category_entropy_at_k`."""

from lora_rec.metrics import category_entropy_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

CategoryEntropyAtK = metric_class(category_entropy_at_k)

"""`category_ild@k` for `evaluate.load`: see `lora_rec.metrics.category_ild_at_k`."""

from lora_rec.metrics import category_ild_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

CategoryIldAtK = metric_class(category_ild_at_k)

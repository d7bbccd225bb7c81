"""`personalization@k` for `evaluate.load`: see `lora_rec.metrics.personalization_at_k`."""

from lora_rec.metrics import personalization_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

PersonalizationAtK = metric_class(personalization_at_k)

"""`new_items@k` for `evaluate.load`: see `lora_rec.metrics.new_items_at_k`."""

from lora_rec.metrics import new_items_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

NewItemsAtK = metric_class(new_items_at_k)

"""`exposure_entropy@k` for `evaluate.load`: see `lora_rec.metrics.exposure_entropy_at_k`."""

from lora_rec.metrics import exposure_entropy_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

ExposureEntropyAtK = metric_class(exposure_entropy_at_k)

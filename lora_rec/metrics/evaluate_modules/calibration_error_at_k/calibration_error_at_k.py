"""`calibration_error@k` for `evaluate.load`: see `lora_rec.metrics.calibration_error_at_k`."""

from lora_rec.metrics import calibration_error_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

CalibrationErrorAtK = metric_class(calibration_error_at_k)

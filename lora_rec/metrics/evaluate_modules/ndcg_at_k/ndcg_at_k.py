"""`ndcg@k` for `evaluate.load`: see `lora_rec.metrics.ndcg_at_k`."""

from lora_rec.metrics import ndcg_at_k
from lora_rec.metrics.evaluate_modules.metric_class import metric_class

NdcgAtK = metric_class(ndcg_at_k)

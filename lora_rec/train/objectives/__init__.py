"""What the towers learn with labels: losses, the batches they see, and their weighted sum."""

from lora_rec.train.objectives.batch import Batch, Material, ShownLists
from lora_rec.train.objectives.combined import Objectives

__all__ = ["Batch", "Material", "Objectives", "ShownLists"]

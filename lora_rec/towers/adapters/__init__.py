"""Adapters on a backbone: attach, start, save, load, mix; nothing else in `towers` knows peft."""

from lora_rec.towers.adapters.attach import Attached, attach
from lora_rec.towers.adapters.prefix import prefix_inputs
from lora_rec.towers.adapters.starts import start_from_inputs, start_from_weights
from lora_rec.towers.adapters.storage import OWN_FORMAT, load_adapter, save_adapter

__all__ = [
    "OWN_FORMAT",
    "Attached",
    "attach",
    "load_adapter",
    "prefix_inputs",
    "save_adapter",
    "start_from_inputs",
    "start_from_weights",
]

"""Adapters on a backbone: attach, start, save, load, mix; nothing else in `towers` knows peft."""

from lora_rec.towers.adapters.attach import Attached, attach
from lora_rec.towers.adapters.prefix import prefix_inputs
from lora_rec.towers.adapters.saved import attach_saved, check_adapter, read_lora_settings
from lora_rec.towers.adapters.starts import start_from_inputs, start_from_weights
from lora_rec.towers.adapters.storage import load_adapter, save_adapter
from lora_rec.towers.adapters.switch import (
    add_adapter,
    add_mixed,
    check_addable,
    check_name,
    mix_adapters,
    remove_adapter,
    require_lora,
    use_adapter,
)

__all__ = [
    "Attached",
    "add_adapter",
    "add_mixed",
    "attach",
    "attach_saved",
    "check_adapter",
    "check_addable",
    "check_name",
    "load_adapter",
    "mix_adapters",
    "prefix_inputs",
    "read_lora_settings",
    "remove_adapter",
    "require_lora",
    "save_adapter",
    "start_from_inputs",
    "start_from_weights",
    "use_adapter",
]

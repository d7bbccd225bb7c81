"""Bundles on the Hub: found, pulled, checked, pushed, each with its card; light, without torch."""

from lora_rec.hub.pull import find_bundle
from lora_rec.hub.push import Pushed, push_bundle

__all__ = ["Pushed", "find_bundle", "push_bundle"]

"""Writes bundles, and builds towers from them."""

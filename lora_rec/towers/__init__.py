"""Backbones, adapters, pooling, and the two towers made of them."""

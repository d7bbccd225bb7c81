"""Strings in, token batches out."""

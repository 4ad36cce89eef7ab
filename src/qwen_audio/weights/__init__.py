"""Tensors by name and byte range, on disk and on a hub."""

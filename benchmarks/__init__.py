"""Benchmarks of this package against its peers: `python -m benchmarks`."""

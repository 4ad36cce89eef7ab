"""Ours against its peers, turn by turn in one run: `python -m benchmarks`."""

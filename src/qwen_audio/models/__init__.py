"""Taps, checkpoints, and one folder per model family."""

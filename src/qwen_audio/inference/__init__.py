"""Encoder and decoder passes, reducers, generation."""

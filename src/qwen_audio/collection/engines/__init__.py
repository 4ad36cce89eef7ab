"""Engines: where the recordings of an index operation are encoded."""

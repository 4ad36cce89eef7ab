"""Linear probes on every tap."""

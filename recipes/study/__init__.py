"""Probing study of the embedded checkpoint: clips, commands and report."""

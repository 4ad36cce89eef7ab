"""Adapters for benchmarks of audio representations: HEAR, X-ARES and MTEB."""

"""This package as benchmarks of audio representations call models: hear, xares, mteb."""

"""Qwen2-Audio: configuration, tensor names, prompt."""

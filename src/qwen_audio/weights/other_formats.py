"""What else a folder may hold instead of model.safetensors, for error messages."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatch

__all__ = ["explain_files"]

_FORMATS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("pytorch_model*.bin", "pytorch_model*.bin.index.json", "adapter_model.bin"),
        "{} holds pickled weights, which can run any code when they are opened: if you trust "
        "it, load it with transformers, save that with save_pretrained, and load that",
    ),
    (
        ("*.gguf",),
        "{} is in llama.cpp's format, GGUF: give the checkpoint that it was made from, in "
        "transformers' format",
    ),
    (
        ("consolidated*", "params.json"),
        "{} is in the format of a model's first release: give its version in transformers' format",
    ),
    (
        ("adapter_model.safetensors",),
        "{} holds an adapter without its adapter_config.json: save it with PEFT's save_pretrained",
    ),
    (
        ("*.distcp", "pytorch_model_fsdp*", "global_step*", "zero_to_fp32.py", "mp_rank_*"),
        "{} is the state of a distributed training: merge it (accelerate merge-weights, or "
        "DeepSpeed's zero_to_fp32.py with --safe_serialization), and load the result",
    ),
    (
        ("tf_model.h5", "flax_model*.msgpack", "*.onnx", "*.pt", "*.pth", "*.ckpt", "*.nemo"),
        "{} is in a format that isn't read: save the model with transformers' save_pretrained",
    ),
    (
        ("*-of-*.safetensors",),
        "{} is a shard without its index: download the index, too",
    ),
    (
        ("*.safetensors",),
        "{} is there, but that is not its name: save the model with transformers' save_pretrained",
    ),
)
"""Patterns of file names, and what to say about the first file that matches; the order counts."""


_COMPLETE = {"model.safetensors", "model.safetensors.index.json"}


def explain_files(names: Collection[str]) -> str | None:
    """What the files are if they aren't weights that can be read, and what to do; None for others.

    Args:
        names: of the files and folders in a folder.
    """
    if not _COMPLETE.isdisjoint(names):
        return None
    for patterns, sentence in _FORMATS:
        for pattern in patterns:
            for name in sorted(names):
                if fnmatch(name, pattern):
                    return sentence.format(name)
    return None

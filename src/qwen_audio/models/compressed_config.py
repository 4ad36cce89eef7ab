"""What config.json says of weights in the format compressed-tensors, for other programs, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qwen_audio.weights.quantization import LinearFormat

__all__ = ["compressed_config"]

_LAYER = re.compile(r"(?P<part>\w+)\..*?layers\.\d+\.(?P<place>.+)")
_ROW_ACTIVATIONS = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "dynamic": True,
}
"""What other programs take for products of 8-bit weights: rows in 8 bits, with a scale each. Here
only the encoder's do."""


def compressed_config(
    shapes: Mapping[str, tuple[int, ...]], formats: Mapping[str, LinearFormat]
) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint.

    Args:
        shapes: of the weights of all linear layers, by name.
        formats: of those that are quantised.
    """
    targets: dict[LinearFormat, dict[str, None]] = {}
    ignored: dict[str, None] = {}
    for name, shape in shapes.items():
        pattern = _pattern(name)
        if name in formats:
            targets.setdefault(formats[name].fitting(shape[1]), {})[pattern] = None
        else:
            ignored[pattern] = None
    groups = {
        f"group_{number}": _group(form, list(patterns))
        for number, (form, patterns) in enumerate(targets.items())
    }
    stored = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": stored.pop() if len(stored) == 1 else "mixed-precision",
        "config_groups": groups,
        "ignore": list(ignored),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _group(form: LinearFormat, targets: list[str]) -> dict[str, Any]:
    is_int8 = form.bits == 8
    return {
        "targets": targets,
        "format": "int-quantized" if is_int8 else "pack-quantized",
        "weights": {
            "num_bits": form.bits,
            "type": "int",
            "symmetric": is_int8,
            "strategy": "channel" if form.group_size is None else "group",
            "group_size": form.group_size,
            "dynamic": False,
        },
        "input_activations": _ROW_ACTIVATIONS if is_int8 else None,
        "output_activations": None,
    }


def _pattern(name: str) -> str:
    """For a weight's name a pattern of the names of its layer and those like it: in checkpoints,
    and in transformers' modules, whose names begin in another way."""
    module = name.removesuffix(".weight")
    if (layer := _LAYER.fullmatch(module)) is None:
        return f"re:.*{re.escape(module.removeprefix('language_model.'))}$"
    return rf"re:.*{layer['part']}\..*layers\.\d+\.{re.escape(layer['place'])}$"

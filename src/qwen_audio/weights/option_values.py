"""Values of the options `dtype`, `quantize` and `max_memory`, checked without torch."""

from __future__ import annotations

import re

from qwen_audio.errors import OptionError, number_option

__all__ = [
    "DTYPE_NAMES",
    "QUANTIZATIONS",
    "check_dtype",
    "check_quantize",
    "quantize_name",
    "resolve_bytes",
]

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Dtypes to compute in."""

QUANTIZATIONS = {
    "int8": "int8",
    "int4": "int4-g32+head-int8",
    "int4-g128": "int4-g128+encoder-int8",
}
"""Ways to quantise a model's weights, and what an embedding spec says of each."""

_SIZE = re.compile(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([kmgt]?i?b?)\s*", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def check_dtype(name: str) -> None:
    """Raises OptionError for anything but `DTYPE_NAMES`."""
    if name not in DTYPE_NAMES:
        raise OptionError(f"dtype={name!r}: use one of {', '.join(DTYPE_NAMES)}")


def check_quantize(name: str) -> None:
    """Raises OptionError for anything but the names in `QUANTIZATIONS`."""
    if not isinstance(name, str) or name not in QUANTIZATIONS:
        raise OptionError(f"quantize={name!r:.80}: use one of {', '.join(QUANTIZATIONS)}, or None")


def quantize_name(quantization: str | None) -> str | None:
    """The option `quantize` that gives what a spec says; None for None, and for what a checkpoint
    is stored in."""
    return next((name for name, spec in QUANTIZATIONS.items() if spec == quantization), None)


def resolve_bytes(memory: str | float | None) -> int | None:
    """A memory limit in bytes, from "4GB", "3.5 GiB" or a number; None stays None.

    Raises:
        OptionError: for anything else.
    """
    if memory is None:
        return None
    allowed = "bytes, or text such as '4GB' or '6GiB'"
    size: float | None = None
    if not isinstance(memory, str):
        size = number_option("max_memory", memory, allowed)
    elif match := _SIZE.fullmatch(memory):
        unit = _UNITS.get(match[2].upper())
        size = None if unit is None else float(match[1]) * unit
    if size is None or not 0 <= size < 2**63:
        given = memory if isinstance(memory, str) else size  # an int may be too long to be printed
        raise OptionError(f"max_memory={given!r:.60}: use {allowed}")
    return round(size)

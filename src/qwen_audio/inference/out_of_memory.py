"""torch's out-of-memory errors as one error of this package: what was needed, and what to do."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from qwen_audio.errors import OutOfMemoryError

from .cost import min_memory_bytes, process_bytes

__all__ = ["explains_out_of_memory"]

P = ParamSpec("P")
T = TypeVar("T")

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED")
"""Of CUDA and Metal; of a CPU, on Linux and on Windows; of cuBLAS."""
_WANTED = re.compile(r"[Tt]ried to allocate (?:([\d.]+) ([KMGT]?)iB|(\d+) bytes)")
_SHARE = 0.8
"""Of `max_memory`: what to try instead."""


def explains_out_of_memory(function: Callable[P, T]) -> Callable[P, T]:
    """A method of a pipeline, or a function of something with one, that raises OutOfMemoryError.

    What the computation held is free by then: the error keeps none of its frames.
    """

    @functools.wraps(function)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error))):
                raise
            reason = str(error)
        raise _explained(getattr(args[0], "pipeline", args[0]), reason)  # not within `except`

    return explaining


def _explained(pipeline: Any, reason: str) -> OutOfMemoryError:
    taken = f"this process holds {_size(process_bytes(pipeline.device))}"
    if (wanted := _WANTED.search(reason)) is not None:
        number, prefix, byte_count = wanted.groups()
        size = float(byte_count or number) * 1024 ** " KMGT".index(prefix or " ")
        taken += f", and needed {_size(size)} more at once"
    advice = [f"max_memory='{limit}MB'"] if (limit := _smaller_limit(pipeline)) else []
    if pipeline.dtype is torch.float32:
        advice.append("dtype='bfloat16'")
    if not pipeline.checkpoint.formats:
        advice.append("quantize='int4'")
    if pipeline.device.type != "cpu":
        advice.append("device='cpu'")
    return OutOfMemoryError(
        f"{pipeline.device} is out of memory ({taken}): free what other programs take, or use "
        f"{', '.join([*advice, 'shorter windows (window_seconds=10)'])}, or a shallower tap"
    )


def _size(byte_count: float) -> str:
    return f"{byte_count / 1e9:.1f} GB" if byte_count >= 1e8 else f"{byte_count / 1e6:.1f} MB"


def _smaller_limit(pipeline: Any) -> int | None:
    """Megabytes of a memory limit to try, with which more is left to what isn't weights; None where
    less than now is too little."""
    if pipeline.max_memory is None:
        return None
    least = min_memory_bytes(
        pipeline.checkpoint, None, pipeline.dtype, pipeline.device, pipeline.base_bytes
    )
    limit = _SHARE * pipeline.max_memory
    return round(limit / 1e6) if limit >= least else None

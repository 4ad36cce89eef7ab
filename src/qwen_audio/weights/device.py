"""Where, in which numbers, and how much at once to compute."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import cast

import torch

from qwen_audio.errors import OptionError

from .option_values import check_dtype

__all__ = [
    "available_bytes",
    "batch_frames",
    "resolve_device",
    "resolve_dtype",
    "trim_heap",
]


def batch_frames(device: torch.device) -> int:
    """Encoder frames (20 ms each) in one pass: two windows of 30 s, or twelve clips of 5 s.

    More of them make a processor no faster and take more memory; a GPU wants four times as many.
    """
    return 12_000 if device.type == "cuda" else 3_000


def trim_heap() -> None:
    """Let the system have what has been freed between tensors of other sizes.

    The C library of Linux (glibc) keeps it, and with clips of every length it comes to hundreds of
    megabytes. Takes some 15 ms after a pass over a minute of audio at the 7B's size.
    """
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def resolve_device(device: str | torch.device | None) -> torch.device:
    """A GPU if there is one, else the CPU, unless named. Raises OptionError if it isn't there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device={device!r} can't be used ({reason}): try 'cpu'") from error
    return found


def resolve_dtype(
    dtype: str | torch.dtype | None, stored: torch.dtype, device: torch.device
) -> torch.dtype:
    """The numbers to compute in: those named, or else the checkpoint's own where they are fast.

    On a CPU that is bfloat16 if it has instructions for it, and float32 otherwise.

    Raises:
        OptionError: for what is no floating point type of the models.
    """
    if dtype is None:
        fast = device.type != "cpu" or (stored is torch.bfloat16 and _multiplies_bfloat16())
        return stored if fast and stored is not torch.float64 else torch.float32
    name = str(dtype).removeprefix("torch.")
    check_dtype(name)
    return cast(torch.dtype, getattr(torch, name))


def available_bytes(device: torch.device) -> int:
    """What this process could still take of a device's memory without others giving any up."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:  # what the kernel says it could give without swapping; only Linux does
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            found = next(line for line in lines if line.startswith("MemAvailable:"))
        return min(int(found.split()[1]) * 1024, _left_in_group())
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 2**63


def _left_in_group() -> int:
    """What a container lets its processes take: a limit of Linux' control groups, if there is."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text() for name in ("memory.max", "memory.current"))
        return 2**63 if limit.strip() == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**63


def _multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16: without, they are slower than float32's."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))

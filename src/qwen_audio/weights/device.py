"""Device, dtype, batch size and memory limits."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from qwen_audio.errors import OptionError

from .option_values import check_dtype

__all__ = [
    "MIN_BATCH_FRAMES",
    "available_bytes",
    "batch_positions",
    "cached_batch_positions",
    "float64_device",
    "has_unused_apple_gpu",
    "max_batch_frames",
    "resolve_device",
    "resolve_dtype",
    "to_device",
    "trim_heap",
]

_CGROUP = Path("/sys/fs/cgroup")


MIN_BATCH_FRAMES = 3_000
"""Encoder frames (20 ms each) that one pass always takes: two windows of 30 s, or twelve clips of
5 s. Larger batches are no faster on a CPU, and take more memory."""

_MAX_GPU_BATCH_FRAMES = 18_000
"""Of the 7B in 16 bits: a step of text generation reads 15.5 GB of weights once for all clips of a
batch, and 0.52 MB of keys and values for each of their positions, 5 / 3 a frame. At 18,000 frames
both take the same time, so that larger batches gain little. In the encoder 18,000 rows are more
than a GPU needs: 5,600 tiles of 128 × 128 for each of its widest products, 40 and more for every
multiprocessor."""


def max_batch_frames(device: torch.device) -> int:
    """Encoder frames in one pass at most, however much memory there is."""
    return _MAX_GPU_BATCH_FRAMES if device.type == "cuda" else MIN_BATCH_FRAMES


def batch_positions(frames: int) -> int:
    """Positions of the language model in one pass: a full batch of audio, and prompts of twelve
    for every 3,000 frames."""
    return frames // 2 + frames // 8


def cached_batch_positions(frames: int, device: torch.device) -> int:
    """Positions of a full batch of texts with their answers: of clips of 5 s, 256 tokens.

    Each takes up to 411, in whole blocks of the cache.
    """
    return frames // 250 * (512 if device.type == "cuda" else 448)


def trim_heap() -> None:
    """Return freed heap memory to the operating system (glibc's malloc_trim; Linux only).

    glibc keeps freed blocks that lie between others. With clips of many lengths they add up to
    hundreds of megabytes. Takes about 15 ms after a pass over a minute of audio with the 7B model.
    """
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device named; None: a GPU if there is one, else the CPU.

    An NVIDIA GPU is resolved with its number: each thread has a current one of its own.

    Raises:
        OptionError: if there is no such device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
        if resolved == torch.device("cuda"):
            resolved = torch.device("cuda", torch.cuda.current_device())
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device={device!r} can't be used ({reason}): try 'cpu'") from error
    return resolved


def resolve_dtype(
    dtype: str | torch.dtype | None, stored: torch.dtype, device: torch.device
) -> torch.dtype:
    """The dtype named; None: the stored dtype where the device is fast in it, else float32.

    A CPU is fast in bfloat16 if it has instructions for it, and never in float16. An NVIDIA GPU
    before compute capability 8.0 (V100, T4) emulates bfloat16, which is slower than float32. It is
    fast in float16, but that is never chosen in place of bfloat16: Qwen's models, trained in
    bfloat16, are known to exceed its range of ±65,504 (github.com/QwenLM/Qwen3/issues/868; the
    maintainers advise float32), so that a recording could fail by default. Who names it gets its
    speed, and an error where rows overflow (`FiniteCheck`). Apple's GPUs are fast in both; macOS
    before 14 lacks bfloat16.

    Raises:
        OptionError: unless it is float32, bfloat16 or float16.
    """
    if dtype is None:
        fast = device.type != "cpu"
        if stored is torch.bfloat16:
            if device.type == "cpu":
                fast = _has_bfloat16_instructions()
            elif device.type == "cuda":
                # Not torch.cuda.is_bf16_supported: it tells of the current device, not of this one.
                fast = torch.cuda.get_device_capability(device) >= (8, 0)
            elif device.type == "mps":
                fast = torch.backends.mps.is_macos_or_newer(14, 0)
        return stored if fast and stored is not torch.float64 else torch.float32
    name = str(dtype).removeprefix("torch.")
    check_dtype(name)
    return cast(torch.dtype, getattr(torch, name))


def has_unused_apple_gpu(device: str | None) -> bool:
    """Whether there is an Apple GPU that isn't used, because no device was named.

    Nothing has been tested on one: the default stays the CPU.
    """
    return device is None and torch.backends.mps.is_available()


def float64_device(device: torch.device) -> torch.device:
    """Where to compute in float64 with rows of a device: Apple's GPUs can't, so on the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


def to_device(values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers, or equally long lists of them, as a tensor on a device.

    From pinned memory to an NVIDIA GPU: else torch would wait for what the GPU computes.
    """
    tensor = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)


def available_bytes(device: torch.device) -> int:
    """Free memory of a device, in bytes; of the machine's within the limit of a container, if any.

    What torch keeps of a GPU's memory for new tensors is free, too. An Apple GPU shares the
    machine's memory.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    return min(psutil.virtual_memory().available, _cgroup_available_bytes())


def _cgroup_available_bytes() -> int:
    """Bytes left below the memory limit of this process's cgroup (v2); 2⁶³ without a limit."""
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        return 2**63 if limit.strip() == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**63


def _has_bfloat16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 natively; without, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))

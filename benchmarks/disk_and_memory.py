"""What the ear costs of a whole 7B checkpoint: bytes and memory."""

from __future__ import annotations

from pathlib import Path

from .benchmark import Missing, Result, Settings, Target
from .checkpoints import SEVEN_B, SMALL, Shape, checkpoint, tower_bytes
from .encoder import DTYPE
from .machine import need
from .rounds import fresh, once
from .synthetic_audio import lengths

__all__ = ["bytes_read", "memory"]

GB = 1e9


def bytes_read(settings: Settings) -> Result:
    need("soundfile")
    _need_linux()
    folder = checkpoint(settings.work, _shape(settings))
    options = {"checkpoint": str(folder), "dtype": DTYPE, "threads": settings.threads}
    python = fresh(settings, ("resources:python_bytes", options))
    command = once(settings, ("resources:command_bytes", options))
    tensors = tower_bytes(_shape(settings))
    ratios = {
        name: facts["fetched"] / tensors
        for name, facts in (("python", python), ("command", command))
    }
    return Result(
        what="bytes that came from the disk, with cold files, for one 5 s clip at audio_tower of a "
        "7B checkpoint, against those of the tensors needed; from Python and from the command line "
        "(the ratio is the larger; what was asked of the system has Python's own modules in it)",
        dtype=DTYPE,
        figures={
            "tensors_bytes": tensors,
            "checkpoint_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
            "python_asked_bytes": python["asked"],
            "python_fetched_bytes": python["fetched"],
            "python_ratio": ratios["python"],
            "command_asked_bytes": command["asked"],
            "command_fetched_bytes": command["fetched"],
            "command_ratio": ratios["command"],
        },
        ratio=max(ratios.values()),
        target=Target(1.02, at_most=True),
    )


def memory(settings: Settings) -> Result:
    _need_linux()
    seconds = lengths(4 if settings.quick else 12, uniform=True)
    options = {
        "checkpoint": str(checkpoint(settings.work, _shape(settings))),
        "lengths": seconds,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    facts = once(settings, ("resources:memory", options))
    weights = tower_bytes(_shape(settings))
    return Result(
        what=f"peak memory of a fresh process (VmHWM) that encodes {len(seconds)} clips of 1 to "
        "30 s at audio_tower, less the weights' own bytes: Python and its libraries included",
        dtype=DTYPE,
        figures={
            "peak_gb": facts["peak"] / GB,
            "weights_gb": weights / GB,
            "python_and_libraries_gb": facts["imports"] / GB,
            "audio_seconds": sum(seconds),
            "seconds": facts["seconds"],
        },
        ratio=(facts["peak"] - weights) / GB,
        target=Target(0.7, at_most=True, unit=" GB"),
    )


def _shape(settings: Settings) -> Shape:
    return SMALL if settings.quick else SEVEN_B


def _need_linux() -> None:
    if not Path("/proc/self/io").exists():
        raise Missing("bytes and peak memory are read from Linux's /proc")

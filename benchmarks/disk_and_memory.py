"""Bytes read and memory used to compute audio_tower of a 7B checkpoint."""

from __future__ import annotations

from .benchmark import Result, Settings, Target
from .checkpoints import SEVEN_B, SMALL, Shape, audio_tower_bytes, random_checkpoint
from .encoder import DTYPE
from .machine import require_linux, require_packages
from .rounds import run_in_new_process, run_once
from .synthetic_audio import durations

__all__ = ["bytes_read", "memory"]

GB = 1e9


def bytes_read(settings: Settings) -> Result:
    require_packages("soundfile")
    require_linux()
    folder = random_checkpoint(settings.work, _shape(settings))
    options = {"checkpoint": str(folder), "dtype": DTYPE, "threads": settings.threads}
    python_output = run_in_new_process(settings, ("resources:python_bytes", options))
    command_output = run_once(settings, ("resources:command_bytes", options))
    tensor_bytes = audio_tower_bytes(_shape(settings))
    ratios = {
        name: output["fetched"] / tensor_bytes
        for name, output in (("python", python_output), ("command", command_output))
    }
    return Result(
        what="bytes read from the disk, with no file cached, for one 5 s clip at audio_tower of a "
        "7B checkpoint, against the size of the tensors needed; from Python and from the command "
        "line (the ratio is the larger of both; bytes requested include Python's own modules)",
        dtype=DTYPE,
        figures={
            "tensors_bytes": tensor_bytes,
            "checkpoint_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
            "python_asked_bytes": python_output["asked"],
            "python_fetched_bytes": python_output["fetched"],
            "python_ratio": ratios["python"],
            "command_asked_bytes": command_output["asked"],
            "command_fetched_bytes": command_output["fetched"],
            "command_ratio": ratios["command"],
        },
        ratio=max(ratios.values()),
        target=Target(1.02, at_most=True),
    )


def memory(settings: Settings) -> Result:
    require_linux()
    seconds = durations(4 if settings.quick else 12, uniform=True)
    options = {
        "checkpoint": str(random_checkpoint(settings.work, _shape(settings))),
        "lengths": seconds,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    output = run_once(settings, ("resources:memory", options))
    weight_bytes = audio_tower_bytes(_shape(settings))
    return Result(
        what=f"peak memory of a fresh process (VmHWM) that encodes {len(seconds)} clips of 1 to "
        "30 s at audio_tower, less the size of the weights; it includes Python and its libraries",
        dtype=DTYPE,
        figures={
            "peak_gb": output["peak"] / GB,
            "weights_gb": weight_bytes / GB,
            "python_and_libraries_gb": output["imports"] / GB,
            "audio_seconds": sum(seconds),
            "seconds": output["seconds"],
        },
        ratio=(output["peak"] - weight_bytes) / GB,
        target=Target(0.7, at_most=True, unit=" GB"),
    )


def _shape(settings: Settings) -> Shape:
    return SMALL if settings.quick else SEVEN_B

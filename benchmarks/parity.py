"""Parity at the 7B's width: its whole ear and two layers of its language model, in float32."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from .benchmark import Result, Settings, Target
from .checkpoints import EAR, SMALL, checkpoint
from .rounds import ROOT, once
from .synthetic_audio import RATE, sound
from .this_package import opened
from .worker import Turn

__all__ = ["compare", "full_width"]

SECONDS = 5.0


def full_width(settings: Settings) -> Result:
    shape = SMALL if settings.quick else EAR
    folder = checkpoint(settings.work, shape)
    options = {"checkpoint": str(folder), "threads": settings.threads}
    facts = once(settings, ("parity:compare", options))
    errors = facts["errors"]
    return Result(
        what=f"largest relative error per tap against transformers' composite model, one clip of "
        f"{SECONDS:g} s, random weights; {shape.encoder_layers} encoder layers of {shape.width} "
        f"and {shape.lm_layers} language model layers of {shape.lm_width}",
        dtype="float32",
        figures={
            "errors": errors,
            "ours_seconds": facts["ours_seconds"],
            "transformers_seconds": facts["transformers_seconds"],
        },
        ratio=max(errors.values()),
        target=Target(1e-5, at_most=True, unit=""),
    )


def compare(checkpoint: str, threads: int) -> Turn:
    """Both, at every tap; the reference is that of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    from reference import Reference, relative_error

    clip = sound(SECONDS)
    model = opened(checkpoint, "float32", threads)
    taps = [str(tap) for tap in model.taps]
    model.activations(clip, taps=taps, sampling_rate=RATE)  # reads the weights
    reference = Reference(Path(checkpoint))

    def turn() -> dict[str, Any]:
        start = perf_counter()
        ours = model.activations(clip, taps=taps, sampling_rate=RATE)
        middle = perf_counter()
        theirs = reference.taps(clip)
        end = perf_counter()
        return {
            "errors": {tap: relative_error(ours[tap].data, theirs[tap]) for tap in taps},
            "ours_seconds": middle - start,
            "transformers_seconds": end - middle,
        }

    return turn

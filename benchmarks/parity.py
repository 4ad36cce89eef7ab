"""Parity at the 7B's width, in float32: the whole audio encoder and two decoder layers."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from .benchmark import Result, Settings, Target
from .checkpoints import FULL_ENCODER, SMALL, random_checkpoint
from .rounds import ROOT, run_once
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_model
from .worker import Workload

__all__ = ["compare", "full_width"]

SECONDS = 5.0


def full_width(settings: Settings) -> Result:
    shape = SMALL if settings.quick else FULL_ENCODER
    folder = random_checkpoint(settings.work, shape)
    options = {"checkpoint": str(folder), "threads": settings.threads}
    output = run_once(settings, ("parity:compare", options))
    errors = output["errors"]
    return Result(
        what=f"largest relative error per tap against transformers' composite model, one clip of "
        f"{SECONDS:g} s, random weights; {shape.encoder_layers} encoder layers of {shape.width} "
        f"and {shape.lm_layers} decoder layers of {shape.lm_width}",
        dtype="float32",
        figures={
            "errors": errors,
            "ours_seconds": output["ours_seconds"],
            "transformers_seconds": output["transformers_seconds"],
        },
        ratio=max(errors.values()),
        target=Target(1e-5, at_most=True, unit=""),
    )


def compare(checkpoint: str, threads: int) -> Workload:
    """Errors at every tap against the tests' reference, which is transformers' composite model."""
    sys.path.insert(0, str(ROOT / "tests"))
    from reference import Reference, relative_error

    clip = synthetic_clip(SECONDS)
    model = load_model(checkpoint, "float32", threads)
    taps = [str(tap) for tap in model.taps]
    model.activations(clip, taps=taps, sampling_rate=SAMPLING_RATE)  # reads the weights
    reference = Reference(Path(checkpoint))

    def run() -> dict[str, Any]:
        start = perf_counter()
        hidden_states = model.activations(clip, taps=taps, sampling_rate=SAMPLING_RATE)
        middle = perf_counter()
        expected = reference.taps(clip)
        end = perf_counter()
        return {
            "errors": {tap: relative_error(hidden_states[tap].data, expected[tap]) for tap in taps},
            "ours_seconds": middle - start,
            "transformers_seconds": end - middle,
        }

    return run

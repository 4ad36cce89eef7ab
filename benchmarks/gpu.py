"""Speed on one NVIDIA GPU against transformers: audio encoder, prompt and first token, decoding.

    python -m benchmarks --gpu

runs all of these in less than ten minutes. Without a GPU each is skipped; a dry run computes on the
CPU.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .benchmark import Benchmark, Result, Settings, SkipBenchmark, Target
from .checkpoints import FULL_ENCODER, SEVEN_B, SMALL, Shape, random_checkpoint
from .rounds import Rounds, median, run_interleaved

__all__ = ["GPU_BENCHMARKS"]

DTYPE = "bfloat16"
PEER = "transformers"
VARIANTS: dict[str, dict[str, Any]] = {"ours": {}, "int4": {"quantize": "int4"}}
"""What generates text beside the peer, and its options for `load`: a row of figures each."""

BATCHES = ((5.0, 1), (5.0, 8), (30.0, 1))
"""Seconds and number of the clips that text is generated for; ratios are of the second."""
_HEADLINE = 1
_NEW_TOKENS = 65
_FEW_LAYERS = Shape("7B_of_8_layers", lm_layers=8)
_GPU_BYTES = 18e9
"""Of the whole 7B: weights, keys and values, and CUDA, in each process."""


def gpu_five_seconds(settings: Settings) -> Result:
    return _encoder(settings, 5.0, 64, Target(5))


def gpu_thirty_seconds(settings: Settings) -> Result:
    return _encoder(settings, 30.0, 8, Target(1.15))


def gpu_prefill(settings: Settings) -> Result:
    return _text(settings, "first_token_seconds", "from samples to the first token", Target(1.15))


def gpu_decode(settings: Settings) -> Result:
    return _text(settings, "step_seconds", "a step of decoding, after the first token", Target(1.8))


GPU_BENCHMARKS: dict[str, Benchmark] = {
    "gpu_five_seconds": gpu_five_seconds,
    "gpu_thirty_seconds": gpu_thirty_seconds,
    "gpu_prefill": gpu_prefill,
    "gpu_decode": gpu_decode,
}


def _encoder(settings: Settings, seconds: float, count: int, target: Target) -> Result:
    device = _device(settings)
    count = 2 if settings.quick else count
    shape = SMALL if settings.quick else FULL_ENCODER
    options = {
        "checkpoint": str(random_checkpoint(settings.work, shape)),
        "seconds": seconds,
        "count": count,
        "dtype": DTYPE,
        "threads": settings.threads,
        "device": device,
    }
    rounds = run_interleaved(
        settings,
        {
            PEER: ("gpu_workloads:transformers_encode", options),
            "ours": ("gpu_workloads:encode", options),
        },
    )
    encoder_pairs = zip(
        rounds.values(PEER, "encoder_seconds"),
        rounds.values("ours", "encoder_seconds"),
        strict=True,
    )
    a, b = (np.asarray(rounds.outputs(name)[0]["first"]) for name in (PEER, "ours"))
    return Result(
        what=f"{count} clips of {seconds:g} s, tap audio_tower: this package against transformers' "
        "composite model, one batch padded to 30 s and masked, log-mel included; and the encoder "
        "alone",
        dtype=DTYPE,
        figures={
            f"{name}_{key}": median(rounds.values(name, key))
            for name in rounds.names
            for key in ("seconds", "encoder_seconds", "peak_gb")
        }
        | {
            "encoder_ratio": median(theirs / ours for theirs, ours in encoder_pairs),
            "cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
        },
        ratio=rounds.median_ratio(PEER, "ours"),
        target=target,
        device=device,
    )


def _text(settings: Settings, key: str, what: str, target: Target) -> Result:
    device = _device(settings)
    shape = _text_shape(settings, device)
    rounds = _text_rounds(settings, shape, device)
    batches = [f"{count}x{seconds:g}s" for seconds, count in BATCHES]
    figures: dict[str, Any] = {}
    for name in rounds.names:
        for index, batch in enumerate(batches):
            figures[f"{name}_{batch}_seconds"] = median(_values(rounds, name, key, index))
            if name != PEER:
                figures[f"{name}_{batch}_ratio"] = _ratio(rounds, name, key, index)
        figures[f"{name}_peak_gb"] = median(rounds.values(name, "peak_gb"))
    seconds, count = BATCHES[_HEADLINE]
    return Result(
        what=f"{what}: {shape.lm_layers} decoder layers of the {shape.name} model, {count} clips "
        f"of {seconds:g} s (the ratio), and other batches, against transformers' generate",
        dtype=DTYPE,
        figures=figures,
        ratio=_ratio(rounds, "ours", key, _HEADLINE),
        target=target,
        device=device,
    )


@functools.cache
def _text_rounds(settings: Settings, shape: Shape, device: str) -> Rounds:
    """Run once for both benchmarks of text: loading takes longer than generating."""
    options = {
        "checkpoint": str(random_checkpoint(settings.work, shape)),
        "batches": BATCHES,
        "new_tokens": 3 if settings.quick else _NEW_TOKENS,
        "dtype": DTYPE,
        "threads": settings.threads,
        "device": device,
    }
    jobs = {
        name: ("gpu_workloads:generate", options | load_options)
        for name, load_options in VARIANTS.items()
    }
    return run_interleaved(
        settings, {PEER: ("gpu_workloads:transformers_generate", options), **jobs}
    )


def _values(rounds: Rounds, name: str, key: str, index: int) -> list[float]:
    """One batch's number in every round."""
    return [float(output[key][index]) for output in rounds.outputs(name)]


def _ratio(rounds: Rounds, name: str, key: str, index: int) -> float:
    pairs = zip(_values(rounds, PEER, key, index), _values(rounds, name, key, index), strict=True)
    return median(theirs / ours for theirs, ours in pairs)


def _text_shape(settings: Settings, device: str) -> Shape:
    """The whole 7B where the GPU holds it once for every process."""
    if settings.quick:
        return SMALL
    import torch

    needed = _GPU_BYTES * (1 + len(VARIANTS))
    holds = torch.cuda.get_device_properties(device).total_memory >= needed
    return SEVEN_B if holds else _FEW_LAYERS


def _device(settings: Settings) -> str:
    """The GPU; in a dry run without one, the CPU.

    Raises:
        SkipBenchmark: without an NVIDIA GPU.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if not settings.quick:
        raise SkipBenchmark("torch finds no NVIDIA GPU (--quick makes a dry run on the CPU)")
    return "cpu"

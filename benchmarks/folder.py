"""A folder of recordings from disk, against a loop of librosa, processor and padded batches."""

from __future__ import annotations

from itertools import pairwise

from .benchmark import Result, Settings, Target
from .checkpoints import FULL_ENCODER, SMALL, Shape, random_checkpoint
from .encoder import DTYPE
from .machine import require_packages
from .rounds import Rounds, run_interleaved
from .synthetic_audio import durations, recording_files

__all__ = ["folder"]

BATCH, ROUNDS = 8, 2


def folder(settings: Settings) -> Result:
    require_packages("librosa", "soundfile")
    shape = _shape(settings)
    count = settings.files if not settings.quick else 4
    log_uniform = _measure(settings, durations(count, uniform=False))
    uniform = _measure(settings, durations(count, uniform=True))
    figures: dict[str, object] = {}
    for spread, (rounds, audio_seconds) in {"octaves": log_uniform, "uniform": uniform}.items():
        for name in rounds.names:
            figures[f"{spread}_{name}_audio_seconds_per_second"] = (
                audio_seconds / rounds.total_seconds(name)
            )
        figures[f"{spread}_audio_seconds"] = audio_seconds
        figures[f"{spread}_ratio"] = rounds.total_ratio("transformers", "ours")
    return Result(
        what=f"{count} files of 1 to 30 s from disk (half flac, half mp3, stereo, 44.1 kHz), tap "
        f"audio_tower, all {shape.encoder_layers} layers: this package against transformers with "
        f"librosa and padded batches of {BATCH}; in {ROUNDS} rounds with different files; "
        "durations log-uniform (the ratio) and uniform",
        dtype=DTYPE,
        figures=figures,
        ratio=log_uniform[0].total_ratio("transformers", "ours"),
        target=Target(3.5),
        packages=("librosa", "soundfile", "av", "soxr"),
    )


def _shape(settings: Settings) -> Shape:
    return SMALL if settings.quick else FULL_ENCODER


def _measure(settings: Settings, seconds: tuple[float, ...]) -> tuple[Rounds, float]:
    """Rounds, and the seconds of audio in all files. Each round takes different files."""
    recording_files(settings.work, seconds)
    options = {
        "checkpoint": str(random_checkpoint(settings.work, _shape(settings))),
        "work": str(settings.work),
        "lengths": list(seconds),
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    jobs = {
        "transformers": ("peers:composite_folder", {**options, "batch": BATCH}),
        "ours": ("this_package:encode_folder", options),
    }
    bounds = [len(seconds) * number // ROUNDS for number in range(ROUNDS + 1)]
    options_of_rounds = [{"start": start, "stop": stop} for start, stop in pairwise(bounds)]
    return run_interleaved(settings, jobs, options_of_rounds), sum(seconds)

"""A folder of recordings from disk, against the loop that everyone writes."""

from __future__ import annotations

from itertools import pairwise

from .benchmark import Result, Settings, Target
from .checkpoints import EAR, SMALL, Shape, checkpoint
from .encoder import DTYPE
from .machine import need
from .rounds import Rounds, in_turns
from .synthetic_audio import files, lengths

__all__ = ["folder"]

BATCH, TURNS = 8, 2


def folder(settings: Settings) -> Result:
    need("librosa", "soundfile")
    shape = _shape(settings)
    count = settings.files if not settings.quick else 4
    octaves = _measure(settings, lengths(count, uniform=False))
    even = _measure(settings, lengths(count, uniform=True))
    figures: dict[str, object] = {}
    for spread, (rounds, audio) in {"octaves": octaves, "uniform": even}.items():
        for name in rounds.names:
            figures[f"{spread}_{name}_audio_seconds_per_second"] = audio / rounds.total(name)
        figures[f"{spread}_audio_seconds"] = audio
        figures[f"{spread}_ratio"] = rounds.total_ratio("transformers", "ours")
    return Result(
        what=f"{count} files of 1 to 30 s from disk (half flac, half mp3, stereo, 44.1 kHz), tap "
        f"audio_tower, all {shape.encoder_layers} layers: ours against transformers with librosa "
        f"and padded batches of {BATCH}; in {TURNS} turns of other files each; lengths spread "
        "evenly in octaves (the ratio), and evenly in seconds",
        dtype=DTYPE,
        figures=figures,
        ratio=octaves[0].total_ratio("transformers", "ours"),
        target=Target(3.5),
        packages=("librosa", "soundfile", "av", "soxr"),
    )


def _shape(settings: Settings) -> Shape:
    return SMALL if settings.quick else EAR


def _measure(settings: Settings, seconds: tuple[float, ...]) -> tuple[Rounds, float]:
    """Each turn takes a part of the files, other ones every time; nobody hears a file twice."""
    files(settings.work, seconds)
    options = {
        "checkpoint": str(checkpoint(settings.work, _shape(settings))),
        "work": str(settings.work),
        "lengths": list(seconds),
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    jobs = {
        "transformers": ("peers:composite_folder", {**options, "batch": BATCH}),
        "ours": ("this_package:folder", options),
    }
    edges = [len(seconds) * turn // TURNS for turn in range(TURNS + 1)]
    parts = [{"start": start, "stop": stop} for start, stop in pairwise(edges)]
    return in_turns(settings, jobs, parts), sum(seconds)

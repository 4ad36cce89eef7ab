"""The case of Music Flamingo."""

from __future__ import annotations

from .audio_flamingo_3 import write_flamingo
from .base import Case

CASE = Case(
    "musicflamingo",
    "MusicFlamingoForConditionalGeneration",
    lambda folder: write_flamingo(folder, "MusicFlamingo", "<|sound_bos|>", "<|sound_eos|>"),
    longest=1200.0,
    unsupported={
        "rope_parameters__rope_theta": (600.0, "rope_theta=600"),
        "rope_parameters": (
            {"rope_type": "linear", "rope_theta": 1200.0, "factor": 2.0},
            "rope_type='linear'",
        ),
    },
)

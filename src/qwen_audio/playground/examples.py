"""The recordings that visitors may pick instead of bringing their own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from qwen_audio import AudioError, Waveform, load_waveform

__all__ = ["examples", "load_example"]

_NAMES = {"guitar.flac": "Guitar", "djembe.flac": "Djembe", "speech.flac": "Speech"}


@cache
def _folder() -> Path:
    """In an installed package beside this module; in a checkout they lie at its root."""
    packaged = Path(__file__).parent / "examples"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples"


def examples() -> dict[str, str]:
    """File → title, of those that are there."""
    return {name: title for name, title in _NAMES.items() if (_folder() / name).is_file()}


def load_example(name: object) -> Waveform:
    """Raises AudioError for anything but the name of one of them."""
    if not isinstance(name, str) or name not in examples():
        raise AudioError(f"{name!r:.40} is no example: choose one of {', '.join(examples())}.")
    waveform = load_waveform(_folder() / name)
    return Waveform(
        waveform.samples,
        name,
        waveform.source_rate_hz,
        waveform.source_channels,
        waveform.source_format,
        waveform.tags,
    )

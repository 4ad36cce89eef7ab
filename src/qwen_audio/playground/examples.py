"""Example recordings offered on the page."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from qwen_audio import AudioError, Waveform, load_waveform

__all__ = ["example_titles", "load_example"]

_TITLES = {"guitar.flac": "Guitar", "djembe.flac": "Djembe", "speech.flac": "Speech"}


@cache
def _folder() -> Path:
    """`examples/` beside this module in an installed package, at the root of a checkout."""
    packaged = Path(__file__).parent / "examples"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples"


def example_titles() -> dict[str, str]:
    """File name → title of the examples that exist."""
    return {name: title for name, title in _TITLES.items() if (_folder() / name).is_file()}


def load_example(name: object) -> Waveform:
    """An example by its file name. Raises AudioError for any other value."""
    if not isinstance(name, str) or name not in example_titles():
        raise AudioError(f"{name!r:.40} is not an example: choose {', '.join(example_titles())}.")
    waveform = load_waveform(_folder() / name)
    return Waveform(
        waveform.samples,
        name,
        waveform.source_rate_hz,
        waveform.source_channels,
        waveform.source_format,
        waveform.tags,
    )

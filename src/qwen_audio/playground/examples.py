"""Example recordings offered on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_audio import AudioError, Waveform, load_waveform
from qwen_audio.audio.examples import example_paths

if TYPE_CHECKING:
    from .context import AppContext

__all__ = ["example_titles", "load_example", "prepared_caption"]


def example_titles() -> dict[str, str]:
    """File name → title of the examples that exist."""
    return {name: path.stem.capitalize() for name, path in example_paths().items()}


def prepared_caption(context: AppContext, name: str) -> str | None:
    """What the model says about an example, where it is known beforehand."""
    return None


def load_example(name: object) -> Waveform:
    """An example by its file name. Raises AudioError for any other value."""
    if not isinstance(name, str) or name not in example_paths():
        raise AudioError(f"{name!r:.40} is not an example: choose {', '.join(example_paths())}.")
    waveform = load_waveform(example_paths()[name])
    return Waveform(
        waveform.samples,
        name,
        waveform.source_rate_hz,
        waveform.source_channels,
        waveform.source_format,
        waveform.tags,
    )

"""Example recordings offered on the page."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_audio import AudioError, Waveform, load_waveform
from qwen_audio.audio.examples import example_paths

if TYPE_CHECKING:
    from qwen_audio import AudioModel

__all__ = ["CAPTIONS_NAME", "example_titles", "load_example", "prepared_caption"]

CAPTIONS_NAME = "example_captions.json"


def example_titles() -> dict[str, str]:
    """File name → title of the examples that exist."""
    return {name: path.stem.capitalize() for name, path in example_paths().items()}


def prepared_caption(model: AudioModel, name: str) -> str | None:
    """What a model says about an example, if a file beside its checkpoint has it.

    A caption belongs to the weights it was made with: those that an adapter, quantisation or
    training has changed have none.
    """
    checkpoint = model.pipeline.checkpoint
    if model.adapter is not None or model.quantization is not None or checkpoint.commit is not None:
        return None
    revision, captions = _captions(checkpoint.folder / CAPTIONS_NAME)
    return captions.get(name) if revision == checkpoint.revision else None


@cache
def _captions(path: Path) -> tuple[str | None, dict[str, str]]:
    """The revision of the weights and, by example, what they say; nothing from other files."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["revision"]), {k: str(v) for k, v in content["captions"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None, {}


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

"""Hear what an audio language model hears: one line from file to text, with a tap at every stage.

    import qwen_audio as qa
    model = qa.load()
    model.describe("song.flac")
    model.encode("song.flac", tap="audio_tower")

The public names are loaded when first used: importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_audio.analysis.comparison import Comparison
    from qwen_audio.analysis.logit_lens import Followed, Lens
    from qwen_audio.analysis.plots.mpl_figure import picture
    from qwen_audio.analysis.plots.plotly_figure import chart
    from qwen_audio.analysis.plots.save import draw
    from qwen_audio.analysis.similarity import Layers
    from qwen_audio.analysis.view import View
    from qwen_audio.api.answer import Answer, Description
    from qwen_audio.api.inspection import Inspection
    from qwen_audio.api.model import QwenAudio, load
    from qwen_audio.api.session import Listening
    from qwen_audio.api.spec import Spec
    from qwen_audio.audio.load import load_waveform
    from qwen_audio.audio.log_mel import LogMel
    from qwen_audio.audio.waveform import Waveform, Window
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.projection import Map
    from qwen_audio.collection.search import Hit
    from qwen_audio.errors import (
        AudioError,
        CheckpointError,
        CollectionError,
        MissingExtraError,
        OptionError,
        QwenAudioError,
        TapError,
    )
    from qwen_audio.inference.cost import Plan
    from qwen_audio.inference.hidden_states import Frames, Span
    from qwen_audio.models.tap import Geometry, Stage, Tap
    from qwen_audio.probing.probe import probe

__version__ = "0.1.0"

_ROOMS = {
    "api.answer": ("Answer", "Description"),
    "audio.waveform": ("Waveform", "Window"),
    "analysis.plots.plotly_figure": ("chart",),
    "collection.collection": ("Collection",),
    "analysis.comparison": ("Comparison",),
    "analysis.plots.mpl_figure": ("picture",),
    "errors": (
        "AudioError",
        "CheckpointError",
        "CollectionError",
        "MissingExtraError",
        "OptionError",
        "QwenAudioError",
        "TapError",
    ),
    "inference.hidden_states": ("Frames", "Span"),
    "api.inspection": ("Inspection",),
    "analysis.similarity": ("Layers",),
    "analysis.logit_lens": ("Followed", "Lens"),
    "api.session": ("Listening",),
    "audio.load": ("load_waveform",),
    "collection.projection": ("Map",),
    "audio.log_mel": ("LogMel",),
    "api.model": ("QwenAudio", "load"),
    "analysis.plots.save": ("draw",),
    "inference.cost": ("Plan",),
    "probing.probe": ("probe",),
    "collection.search": ("Hit",),
    "api.spec": ("Spec",),
    "models.tap": ("Geometry", "Stage", "Tap"),
    "analysis.view": ("View",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Answer",
    "AudioError",
    "CheckpointError",
    "Collection",
    "CollectionError",
    "Comparison",
    "Description",
    "Followed",
    "Frames",
    "Geometry",
    "Hit",
    "Inspection",
    "Layers",
    "Lens",
    "Listening",
    "LogMel",
    "Map",
    "MissingExtraError",
    "OptionError",
    "Plan",
    "QwenAudio",
    "QwenAudioError",
    "Span",
    "Spec",
    "Stage",
    "Tap",
    "TapError",
    "View",
    "Waveform",
    "Window",
    "__version__",
    "chart",
    "draw",
    "load",
    "load_waveform",
    "picture",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

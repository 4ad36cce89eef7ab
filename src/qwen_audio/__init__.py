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
    from .answer import Answer, Description
    from .audio import Waveform, Window
    from .charts import chart
    from .collection import Collection
    from .comparison import Comparison
    from .drawing import picture
    from .errors import (
        AudioError,
        CheckpointError,
        CollectionError,
        MissingExtraError,
        OptionError,
        QwenAudioError,
        TapError,
    )
    from .frames import Frames, Span
    from .inspection import Inspection
    from .layers import Layers
    from .lens import Followed, Lens
    from .listening import Listening
    from .loading import load_waveform
    from .mapping import Map
    from .mel import LogMel
    from .model import QwenAudio, load
    from .pages import draw
    from .plan import Plan
    from .probing import probe
    from .searching import Hit
    from .spec import Spec
    from .tap import Geometry, Stage, Tap
    from .view import View

__version__ = "0.1.0"

_ROOMS = {
    "answer": ("Answer", "Description"),
    "audio": ("Waveform", "Window"),
    "charts": ("chart",),
    "collection": ("Collection",),
    "comparison": ("Comparison",),
    "drawing": ("picture",),
    "errors": (
        "AudioError",
        "CheckpointError",
        "CollectionError",
        "MissingExtraError",
        "OptionError",
        "QwenAudioError",
        "TapError",
    ),
    "frames": ("Frames", "Span"),
    "inspection": ("Inspection",),
    "layers": ("Layers",),
    "lens": ("Followed", "Lens"),
    "listening": ("Listening",),
    "loading": ("load_waveform",),
    "mapping": ("Map",),
    "mel": ("LogMel",),
    "model": ("QwenAudio", "load"),
    "pages": ("draw",),
    "plan": ("Plan",),
    "probing": ("probe",),
    "searching": ("Hit",),
    "spec": ("Spec",),
    "tap": ("Geometry", "Stage", "Tap"),
    "view": ("View",),
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

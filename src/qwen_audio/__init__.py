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
    from qwen_audio.analysis.logit_lens import LogitLens, TrackedToken
    from qwen_audio.analysis.plots.mpl_figure import plot
    from qwen_audio.analysis.plots.plotly_figure import plot_interactive
    from qwen_audio.analysis.plots.save import save_plot
    from qwen_audio.analysis.similarity import LayerSimilarity
    from qwen_audio.analysis.view import View
    from qwen_audio.api.answer import Answer, Description
    from qwen_audio.api.inspection import ShapeTrace
    from qwen_audio.api.model import AudioModel, load
    from qwen_audio.api.session import AudioSession
    from qwen_audio.api.spec import EmbeddingSpec
    from qwen_audio.audio.load import load_waveform
    from qwen_audio.audio.log_mel import LogMel
    from qwen_audio.audio.waveform import Waveform, Window
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.projection import Projection
    from qwen_audio.collection.search import SearchResult
    from qwen_audio.errors import (
        AudioError,
        CheckpointError,
        CollectionError,
        MissingExtraError,
        OptionError,
        QwenAudioError,
        TapError,
    )
    from qwen_audio.inference.cost import CostEstimate
    from qwen_audio.inference.hidden_states import HiddenStates, Span
    from qwen_audio.models.tap import ModelDimensions, Stage, Tap
    from qwen_audio.probing.probe import probe

__version__ = "0.1.0"

_ROOMS = {
    "api.answer": ("Answer", "Description"),
    "audio.waveform": ("Waveform", "Window"),
    "analysis.plots.plotly_figure": ("plot_interactive",),
    "collection.collection": ("Collection",),
    "analysis.comparison": ("Comparison",),
    "analysis.plots.mpl_figure": ("plot",),
    "errors": (
        "AudioError",
        "CheckpointError",
        "CollectionError",
        "MissingExtraError",
        "OptionError",
        "QwenAudioError",
        "TapError",
    ),
    "inference.hidden_states": ("HiddenStates", "Span"),
    "api.inspection": ("ShapeTrace",),
    "analysis.similarity": ("LayerSimilarity",),
    "analysis.logit_lens": ("TrackedToken", "LogitLens"),
    "api.session": ("AudioSession",),
    "audio.load": ("load_waveform",),
    "collection.projection": ("Projection",),
    "audio.log_mel": ("LogMel",),
    "api.model": ("AudioModel", "load"),
    "analysis.plots.save": ("save_plot",),
    "inference.cost": ("CostEstimate",),
    "probing.probe": ("probe",),
    "collection.search": ("SearchResult",),
    "api.spec": ("EmbeddingSpec",),
    "models.tap": ("ModelDimensions", "Stage", "Tap"),
    "analysis.view": ("View",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Answer",
    "AudioError",
    "AudioModel",
    "AudioSession",
    "CheckpointError",
    "Collection",
    "CollectionError",
    "Comparison",
    "CostEstimate",
    "Description",
    "EmbeddingSpec",
    "HiddenStates",
    "LayerSimilarity",
    "LogMel",
    "LogitLens",
    "MissingExtraError",
    "ModelDimensions",
    "OptionError",
    "Projection",
    "QwenAudioError",
    "SearchResult",
    "ShapeTrace",
    "Span",
    "Stage",
    "Tap",
    "TapError",
    "TrackedToken",
    "View",
    "Waveform",
    "Window",
    "__version__",
    "load",
    "load_waveform",
    "plot",
    "plot_interactive",
    "probe",
    "save_plot",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

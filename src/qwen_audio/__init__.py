"""Qwen2-Audio with a tap at every stage: captions, embeddings and hidden states of recordings.

    import qwen_audio as qa
    model = qa.load()                                # an AudioModel
    model.describe("song.flac")                      # words
    model.encode("song.flac", tap="audio_tower")     # a vector

The names by purpose; `help(qa.AudioModel)` has the methods of a model, help(qa.NAME) each of these:

    load, AudioModel            open a checkpoint: describe, chat, score, classify, encode, session,
                                encode_each, activations, view, lens, compare, layer_similarity,
                                inspect, cost, spec
    connect, RemoteModel        a model that `qwen-audio serve` serves, with some of these methods
    Description, Answer         of describe; AudioSession: questions about one recording
    Scores                      of score: how likely given answers are
    Classification, Reliability of classify: classes and their probabilities
    Embeddings, EmbeddingSpec   of encode: vectors with their times, and all that decides one
    HiddenStates, Span          of activations: the rows of a tap with their times
    View, LogitLens, Comparison, LayerSimilarity, TrackedToken    what can be plotted:
    plot, plot_interactive, save_plot                             a figure, a page, a file
    AttentionWeights            of attention: where the language model looks
    AudioAblation, Occlusion    what an answer depends on: of audio_ablation, occlusion
    Collection, SearchResults, SearchResult, Projection           recordings to search and map
    edits, Trace                what model.edit puts in the place of rows; of model.trace
    direction, Direction        the difference of two classes' means at a tap, for steering
    probe                       how well labels can be read from each tap
    find_files                  recordings in folders, patterns and manifests
    map_dataset                 a Ray Dataset of recordings, a row a window
    quantize_checkpoint         a folder with quantised weights
    save_embeddings             vectors as .npz, .safetensors, .parquet or .arrow
    ActivationDataset           rows of taps in shards, for training sparse dictionaries
    load_waveform, Waveform, Window, LogMel, DecodeLimits         audio
    Tap, Stage, ModelDimensions, CostEstimate, ShapeTrace         a model's taps and their costs
    QwenAudioError              every error: AudioError, CheckpointError, CollectionError,
                                MissingExtraError, OptionError, OutOfMemoryError, TapError;
                                AudioWarning, ScoreWarning: warnings

Importing this package loads no torch: the modules of the public names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_audio.analysis.attention import AttentionWeights as AttentionWeights
    from qwen_audio.analysis.audio_ablation import AudioAblation as AudioAblation
    from qwen_audio.analysis.classification import Classification as Classification
    from qwen_audio.analysis.comparison import Comparison as Comparison
    from qwen_audio.analysis.logit_lens import LogitLens as LogitLens
    from qwen_audio.analysis.logit_lens import TrackedToken as TrackedToken
    from qwen_audio.analysis.occlusion import Occlusion as Occlusion
    from qwen_audio.analysis.plots.matplotlib_renderer import plot as plot
    from qwen_audio.analysis.plots.plotly_renderer import plot_interactive as plot_interactive
    from qwen_audio.analysis.plots.save import save_plot as save_plot
    from qwen_audio.analysis.reliability import Reliability as Reliability
    from qwen_audio.analysis.scores import Scores as Scores
    from qwen_audio.analysis.similarity import LayerSimilarity as LayerSimilarity
    from qwen_audio.analysis.trace import Trace as Trace
    from qwen_audio.analysis.view import View as View
    from qwen_audio.api.activation_dataset import ActivationDataset as ActivationDataset
    from qwen_audio.api.answer import Answer as Answer
    from qwen_audio.api.answer import Description as Description
    from qwen_audio.api.embeddings import Embeddings as Embeddings
    from qwen_audio.api.export import save_embeddings as save_embeddings
    from qwen_audio.api.inspection import ShapeTrace as ShapeTrace
    from qwen_audio.api.model import AudioModel as AudioModel
    from qwen_audio.api.model import load as load
    from qwen_audio.api.quantize_checkpoint import quantize_checkpoint as quantize_checkpoint
    from qwen_audio.api.session import AudioSession as AudioSession
    from qwen_audio.audio.decode_limits import DecodeLimits as DecodeLimits
    from qwen_audio.audio.find_files import find_files as find_files
    from qwen_audio.audio.load import load_waveform as load_waveform
    from qwen_audio.audio.log_mel import LogMel as LogMel
    from qwen_audio.audio.waveform import Waveform as Waveform
    from qwen_audio.audio.window import Window as Window
    from qwen_audio.collection.collection import Collection as Collection
    from qwen_audio.collection.projection import Projection as Projection
    from qwen_audio.collection.search_results import SearchResult as SearchResult
    from qwen_audio.collection.search_results import SearchResults as SearchResults
    from qwen_audio.errors import AudioError as AudioError
    from qwen_audio.errors import AudioWarning as AudioWarning
    from qwen_audio.errors import CheckpointError as CheckpointError
    from qwen_audio.errors import CollectionError as CollectionError
    from qwen_audio.errors import MissingExtraError as MissingExtraError
    from qwen_audio.errors import OptionError as OptionError
    from qwen_audio.errors import OutOfMemoryError as OutOfMemoryError
    from qwen_audio.errors import QwenAudioError as QwenAudioError
    from qwen_audio.errors import ScoreWarning as ScoreWarning
    from qwen_audio.errors import TapError as TapError
    from qwen_audio.inference import edits as edits
    from qwen_audio.inference.cost import CostEstimate as CostEstimate
    from qwen_audio.inference.embedding_spec import EmbeddingSpec as EmbeddingSpec
    from qwen_audio.inference.hidden_states import HiddenStates as HiddenStates
    from qwen_audio.inference.spans import Span as Span
    from qwen_audio.integrations.ray_dataset import map_dataset as map_dataset
    from qwen_audio.models.tap import ModelDimensions as ModelDimensions
    from qwen_audio.models.tap import Stage as Stage
    from qwen_audio.models.tap import Tap as Tap
    from qwen_audio.probing.direction import Direction as Direction
    from qwen_audio.probing.direction import direction as direction
    from qwen_audio.probing.probe import probe as probe
    from qwen_audio.serve.client import RemoteModel as RemoteModel
    from qwen_audio.serve.client import connect as connect
__version__ = "0.1.0"

_EXPORTS = {
    "api.activation_dataset": ("ActivationDataset",),
    "api.answer": ("Answer", "Description"),
    "api.embeddings": ("Embeddings",),
    "api.export": ("save_embeddings",),
    "audio.waveform": ("Waveform",),
    "audio.window": ("Window",),
    "analysis.plots.plotly_renderer": ("plot_interactive",),
    "collection.collection": ("Collection",),
    "analysis.attention": ("AttentionWeights",),
    "analysis.audio_ablation": ("AudioAblation",),
    "analysis.occlusion": ("Occlusion",),
    "analysis.comparison": ("Comparison",),
    "analysis.plots.matplotlib_renderer": ("plot",),
    "errors": (
        "AudioError",
        "AudioWarning",
        "CheckpointError",
        "CollectionError",
        "MissingExtraError",
        "OptionError",
        "OutOfMemoryError",
        "QwenAudioError",
        "ScoreWarning",
        "TapError",
    ),
    "inference.hidden_states": ("HiddenStates",),
    "inference.interventions": ("edits",),
    "inference.spans": ("Span",),
    "integrations.ray_dataset": ("map_dataset",),
    "api.inspection": ("ShapeTrace",),
    "analysis.classification": ("Classification",),
    "analysis.reliability": ("Reliability",),
    "analysis.scores": ("Scores",),
    "analysis.similarity": ("LayerSimilarity",),
    "analysis.logit_lens": ("TrackedToken", "LogitLens"),
    "api.session": ("AudioSession",),
    "audio.find_files": ("find_files",),
    "audio.load": ("load_waveform",),
    "audio.decode_limits": ("DecodeLimits",),
    "collection.projection": ("Projection",),
    "audio.log_mel": ("LogMel",),
    "api.model": ("AudioModel", "load"),
    "api.quantize_checkpoint": ("quantize_checkpoint",),
    "analysis.plots.save": ("save_plot",),
    "inference.cost": ("CostEstimate",),
    "probing.probe": ("probe",),
    "collection.search_results": ("SearchResult", "SearchResults"),
    "inference.embedding_spec": ("EmbeddingSpec",),
    "models.tap": ("ModelDimensions", "Stage", "Tap"),
    "analysis.view": ("View",),
    "analysis.trace": ("Trace",),
    "probing.direction": ("Direction", "direction"),
    "serve.client": ("RemoteModel", "connect"),
}
"""Public names by the module that defines them; it is imported when one of them is first used."""

_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
# There is no __all__: `help` would print every method of all classes, 6000 lines.


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_MODULE_OF, "__version__"])

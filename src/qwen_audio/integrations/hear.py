"""Adapter for HEAR, the Holistic Evaluation of Audio Representations (2021).

    hear-validator qwen_audio.integrations.hear
    python -m heareval.embeddings.runner qwen_audio.integrations.hear --tasks-dir tasks

See https://hearbenchmark.com/hear-api.html.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from qwen_audio.api.model import load
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.models.checkpoint import EMBEDDED

__all__ = ["Model", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]


class Model(torch.nn.Module):
    """A model with the attributes that HEAR's common API requires.

    Args:
        checkpoint: as for `qwen_audio.load`.
        tap: where embeddings are read. HEAR has no prompts: the default prompt is used.
    """

    def __init__(self, checkpoint: str = EMBEDDED, tap: str = "audio_tower") -> None:
        super().__init__()
        self.audio_model, self.tap = load(checkpoint), tap
        self.sample_rate = SAMPLE_RATE_HZ
        dimensions = self.audio_model.dimensions
        width = dimensions.width(dimensions.tap(tap))
        self.scene_embedding_size = self.timestamp_embedding_size = width


def load_model(model_file_path: str = "", tap: str = "audio_tower") -> Model:
    """Loads a checkpoint's folder or hub name; the embedded checkpoint if none is given."""
    return Model(model_file_path or EMBEDDED, tap)


def get_timestamp_embeddings(
    audio: Float[Tensor, "clips samples"], model: Model
) -> tuple[Float32[Tensor, "clips rows width"], Float32[Tensor, "clips rows"]]:
    """Rows of each clip, and the time at the middle of each row in milliseconds."""
    hidden_states = model.audio_model.activations(
        _clips(audio), taps=[model.tap], sampling_rate=model.sample_rate, progress=False
    )
    rows_and_seconds = [_audio_rows(taps[model.tap]) for taps in hidden_states]
    rows = np.stack([rows for rows, _ in rows_and_seconds])
    seconds = np.stack([seconds for _, seconds in rows_and_seconds])
    return _tensor(rows, audio), _tensor(1000 * seconds, audio)


def get_scene_embeddings(
    audio: Float[Tensor, "clips samples"], model: Model
) -> Float32[Tensor, "clips width"]:
    """Mean of each clip's rows."""
    vectors = model.audio_model.encode(
        _clips(audio), tap=model.tap, sampling_rate=model.sample_rate
    )
    return _tensor(vectors, audio)


def _clips(audio: Tensor) -> list[np.ndarray]:
    return list(audio.detach().cpu().float().numpy())


def _audio_rows(states: HiddenStates) -> tuple[np.ndarray, np.ndarray]:
    """The rows of audio, and the time at the middle of each in seconds."""
    rows = states.indices("audio")
    return states.data[rows], states.start_seconds[rows] + states.hop_seconds / 2


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(like.device)

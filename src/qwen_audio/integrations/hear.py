"""The common API of HEAR, the Holistic Evaluation of Audio Representations (2021).

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
    """What HEAR asks of a model, around one of ours.

    Args:
        checkpoint: as `qwen_audio.load` takes it.
        tap: where it is read. HEAR knows of no prompts: they are the default.
    """

    def __init__(self, checkpoint: str = EMBEDDED, tap: str = "audio_tower") -> None:
        super().__init__()
        self.audio_model, self.tap = load(checkpoint), tap
        self.sample_rate = SAMPLE_RATE_HZ
        geometry = self.audio_model.dimensions
        self.scene_embedding_size = self.timestamp_embedding_size = geometry.width(
            geometry.tap(tap)
        )


def load_model(model_file_path: str = "", tap: str = "audio_tower") -> Model:
    """A checkpoint's folder or name on a hub; without one, the embedded checkpoint."""
    return Model(model_file_path or EMBEDDED, tap)


def get_timestamp_embeddings(
    audio: Float[Tensor, "clips samples"], model: Model
) -> tuple[Float32[Tensor, "clips rows width"], Float32[Tensor, "clips rows"]]:
    """The rows of each clip, and the milliseconds that the middle of each stands for."""
    clips = model.audio_model.activations(
        _clips(audio), taps=[model.tap], sampling_rate=model.sample_rate
    )
    frames = [_audio(of[model.tap]) for of in clips]
    rows = np.stack([data for data, _ in frames])
    middles = np.stack([seconds for _, seconds in frames])
    return _tensor(rows, audio), _tensor(1000 * middles, audio)


def get_scene_embeddings(
    audio: Float[Tensor, "clips samples"], model: Model
) -> Float32[Tensor, "clips width"]:
    """The mean of each clip's rows."""
    vectors = model.audio_model.encode(
        _clips(audio), tap=model.tap, sampling_rate=model.sample_rate
    )
    return _tensor(vectors, audio)


def _clips(audio: Tensor) -> list[np.ndarray]:
    return list(audio.detach().cpu().float().numpy())


def _audio(frames: HiddenStates) -> tuple[np.ndarray, np.ndarray]:
    """Rows of audio, and the middle of each in seconds."""
    rows = frames.rows("audio")
    return frames.data[rows], frames.seconds[rows] + frames.hop_seconds / 2


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(like.device)

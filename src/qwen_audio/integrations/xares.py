"""Adapter for X-ARES, the eXtensive Audio Representation and Evaluation Suite.

    python -m xares.run PATH/TO/qwen_audio/integrations/xares.py src/tasks/esc50_task.py

See https://github.com/jimbozhang/xares.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from qwen_audio.api.model import load
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.models.checkpoint import EMBEDDED

__all__ = ["QwenAudioEncoder"]


class QwenAudioEncoder(torch.nn.Module):
    """Audio encoder that returns the rows of a tap: 25 a second at `audio_tower`.

    Args:
        checkpoint: as for `qwen_audio.load`.
        tap: `projector` or one before it.
    """

    def __init__(self, checkpoint: str = EMBEDDED, tap: str = "audio_tower") -> None:
        super().__init__()
        self.audio_model, self.tap = load(checkpoint), tap
        dimensions = self.audio_model.dimensions
        resolved_tap = dimensions.tap(tap)
        self.sampling_rate = SAMPLE_RATE_HZ
        self.output_dim = dimensions.width(resolved_tap)
        self.hop_size_in_ms = round(1000 * dimensions.hop_seconds(resolved_tap))

    def forward(
        self, audio: Float[Tensor, "clips samples"] | Float[Tensor, "samples"]
    ) -> Float32[Tensor, "clips rows width"]:
        """Rows of clips of equal length at 16 kHz; a single clip is a batch of one."""
        clips = torch.atleast_2d(audio).detach().cpu().float().numpy()
        rows = self.audio_model.encode(
            list(clips), tap=self.tap, pooling="none", sampling_rate=self.sampling_rate
        )
        return torch.from_numpy(np.stack(rows)).to(audio.device)

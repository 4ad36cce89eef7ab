"""An encoder as X-ARES, the eXtensive Audio Representation and Evaluation Suite, takes it.

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
    """Clips in, rows of a tap in the ear out: 25 a second at `audio_tower`.

    Args:
        checkpoint: as `qwen_audio.load` takes it.
        tap: up to `projector`.
    """

    def __init__(self, checkpoint: str = EMBEDDED, tap: str = "audio_tower") -> None:
        super().__init__()
        self.audio_model, self.tap = load(checkpoint), tap
        where = self.audio_model.dimensions.tap(tap)
        self.sampling_rate = SAMPLE_RATE_HZ
        self.output_dim = self.audio_model.dimensions.width(where)
        self.hop_size_in_ms = round(1000 * where.hop_seconds)

    def forward(
        self, audio: Float[Tensor, "clips samples"] | Float[Tensor, "samples"]
    ) -> Float32[Tensor, "clips rows width"]:
        """Rows of clips of one length at 16 kHz; one clip alone is a batch of one."""
        clips = torch.atleast_2d(audio).detach().cpu().float().numpy()
        rows = self.audio_model.encode(
            list(clips), tap=self.tap, pooling="none", sampling_rate=self.sampling_rate
        )
        return torch.from_numpy(np.stack(rows)).to(audio.device)

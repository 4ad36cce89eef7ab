"""An audio encoder as mteb, the Massive Text (and now audio) Embedding Benchmark, takes it.

    import mteb
    from qwen_audio.integrations.mteb import QwenAudioEncoder

    mteb.evaluate(QwenAudioEncoder(), mteb.get_task("GTZANGenre"))

See https://github.com/embeddings-benchmark/mteb.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.api.model import load
from qwen_audio.audio.load import load_waveform
from qwen_audio.errors import MissingExtraError
from qwen_audio.models.checkpoint import EMBEDDED

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
except ImportError as error:
    raise MissingExtraError("the adapter for mteb", "mteb") from error

__all__ = ["QwenAudioEncoder"]


class QwenAudioEncoder(AbsEncoder):  # type: ignore[misc]
    """One vector a clip: whole, not padded, whatever its length and rate.

    Args:
        model_name: as `qwen_audio.load` takes it.
        revision: of a hub model.
        device: where to compute.
        options: of `AudioModel.encode`: tap, pooling, span, prompt.
    """

    def __init__(
        self,
        model_name: str = EMBEDDED,
        revision: str | None = None,
        *,
        device: str | None = None,
        **options: Any,
    ) -> None:
        self._model = load(model_name, revision=revision, device=device)
        self._options = options
        spec = self._model.spec(**options)
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"qwen-audio/{spec.fingerprint}",
                "revision": spec.revision,
                "modalities": ["audio"],
            }
        )

    def encode(self, inputs: Any, **_of_the_task: Any) -> Float32[np.ndarray, "clips width"]:
        """The vectors of a DataLoader's clips, in order."""
        inputs.collate_fn = list  # rows as they are: no padding, no resampling but ours
        sounds = (row["audio"] for rows in inputs for row in rows)
        clips = (
            load_waveform(np.asarray(of["array"], np.float32), sampling_rate=of["sampling_rate"])
            for of in sounds
        )
        return np.stack(list(self._model.encode_each(clips, **self._options)))

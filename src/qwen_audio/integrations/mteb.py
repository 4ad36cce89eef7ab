"""Adapter for MTEB, the Massive Text Embedding Benchmark (which has audio tasks too).

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
from qwen_audio.errors import check_extra
from qwen_audio.models.checkpoint import EMBEDDED

check_extra("the adapter for mteb", "mteb", "mteb")
from mteb.models.abs_encoder import AbsEncoder  # noqa: E402
from mteb.models.model_meta import ModelMeta  # noqa: E402

__all__ = ["QwenAudioEncoder"]


class QwenAudioEncoder(AbsEncoder):  # type: ignore[misc]
    """Audio encoder that returns one vector per clip, without padding or truncation.

    Args:
        model_name: as for `qwen_audio.load`.
        revision: of a model on the hub.
        device: such as "cpu" or "cuda".
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

    def encode(self, inputs: Any, **_task_arguments: Any) -> Float32[np.ndarray, "clips width"]:
        """Vectors of a DataLoader's clips, in order."""
        inputs.collate_fn = list  # no padding or resampling by mteb
        clips = (row["audio"] for batch in inputs for row in batch)
        return np.stack(list(self._model.encode_each(clips, **self._options)))

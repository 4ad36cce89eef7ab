"""Adapter for MTEB, the Massive Text Embedding Benchmark (which has audio tasks too).

    import mteb
    from qwen_audio.integrations.mteb import QwenAudioClassifier, QwenAudioEncoder

    mteb.evaluate(QwenAudioEncoder(), mteb.get_task("GTZANGenre"))
    mteb.evaluate(QwenAudioClassifier(), mteb.get_task("ESC50_Zeroshot"))

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

__all__ = ["QwenAudioClassifier", "QwenAudioEncoder"]


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


class QwenAudioClassifier(AbsEncoder):  # type: ignore[misc]
    """Zero-shot classification by `AudioModel.classify`: the candidate labels are its classes.

    mteb compares embeddings of labels and clips. Those of the labels are the unit vectors, and
    those of a clip its probabilities, so that their product is the probability of a label.

    Args:
        model_name, revision, device: as of `QwenAudioEncoder`.
        template: an answer with {} for a label, such as "The sound is {}.".
        options: of `AudioModel.classify`: prompt, prior, length_normalized.
    """

    def __init__(
        self,
        model_name: str = EMBEDDED,
        revision: str | None = None,
        *,
        device: str | None = None,
        template: str = "{}",
        **options: Any,
    ) -> None:
        self._model = load(model_name, revision=revision, device=device)
        self._template, self._options = template, options
        self._labels: list[str] = []
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"qwen-audio/{self._model.name.rpartition('/')[2]}-zero-shot",
                "revision": self._model.pipeline.checkpoint.revision,
                "modalities": ["audio", "text"],
            }
        )

    def encode(self, inputs: Any, **_task_arguments: Any) -> Float32[np.ndarray, "items labels"]:
        """Unit vectors of a DataLoader's labels, which are the classes of the clips that follow."""
        inputs.collate_fn = list  # no padding or resampling by mteb
        rows = [row for batch in inputs for row in batch]
        if "text" in rows[0] and "audio" not in rows[0]:
            self._labels = [str(row["text"]) for row in rows]
            return np.eye(len(rows), dtype=np.float32)
        classes = {label: self._template.format(label) for label in self._labels}
        result = self._model.classify([row["audio"] for row in rows], classes, **self._options)
        return result.probability.astype(np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Float32[np.ndarray, "clips labels"]:
        """The probability of each label, for each clip."""
        product: np.ndarray = np.asarray(embeddings1) @ np.asarray(embeddings2).T
        return product

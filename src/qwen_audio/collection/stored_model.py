"""The model that a collection's vectors are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_audio.errors import CollectionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.paths import is_folder
from qwen_audio.weights.option_values import quantize_name

from .location import TableLocation

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["load_stored_model"]


def load_stored_model(spec: EmbeddingSpec, location: TableLocation) -> AudioModel:
    """The model of a spec, in its dtype and revision, quantised as it was.

    Raises:
        CheckpointError: if it can't be loaded.
        CollectionError: if the spec has an adapter, which is known by its content only.
    """
    from qwen_audio.api.model import load

    if spec.adapter is not None:
        raise CollectionError(
            f"{location} was made with an adapter (content hash {spec.adapter}): open it with "
            f"model=load({spec.model!r}, adapter=…)"
        )
    is_local = spec.model == "embedded" or is_folder(spec.model)
    return load(
        spec.model,
        dtype=spec.dtype,
        revision=None if is_local else spec.revision,
        quantize=quantize_name(spec.quantization),
    )

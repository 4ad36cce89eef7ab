"""A new collection: its embedding spec and its table, without rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import CollectionError

from .database import check_installed
from .table import WindowTable

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["create_table"]


def create_table(
    path: str | Path,
    model: AudioModel,
    options: Mapping[str, Any],
    *,
    has_captions: bool,
    float32: bool,
    storage_options: Mapping[str, str] | None,
) -> WindowTable:
    """The table of a collection of a model's vectors; `options` are those of its embedding spec.

    Raises: as `Collection.create`.
    """
    from qwen_audio.inference.options import check_vector_pooling
    from qwen_audio.inference.pooling import pooled_width

    check_installed()
    if WindowTable.exists(path, storage_options):
        raise CollectionError(f"{path} is there already: open it, or use another name")
    spec = model.spec(**options)
    check_vector_pooling(spec.pooling, "window")
    width = pooled_width(spec.pooling, model.dimensions.width(model.dimensions.tap(spec.tap)))
    return WindowTable.create(
        path,
        spec,
        width,
        has_captions=has_captions,
        float32=float32,
        storage_options=storage_options,
    )

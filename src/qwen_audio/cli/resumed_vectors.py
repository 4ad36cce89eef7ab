"""Embeddings of one recording as bytes for a journal, and those of a file that is continued."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qwen_audio.api.embeddings import Embeddings
from qwen_audio.api.vector_reader import read_vectors
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.row_index import RowIndex

from .caption_files import other_settings
from .journal import Journal

__all__ = ["continue_vectors", "embeddings_from_bytes", "embeddings_to_bytes"]


def continue_vectors(
    journal: Journal, output: Path, specs: Sequence[Mapping[str, Any]], per: str
) -> None:
    """Take over the recordings of a finished file.

    Raises:
        OptionError: if it was made with other settings.
    """
    for source, by_tap in read_vectors(output):
        same = [part.spec.settings for part in by_tap.values()] == list(specs)
        for part in by_tap.values():
            if part.spec.pooling != "none":
                windows = part.window
                same &= len(windows) == 1 if per == "recording" else bool((windows >= 0).all())
        if not same:
            raise other_settings(output)
        journal.take_over(source, embeddings_to_bytes(by_tap))


def embeddings_to_bytes(embeddings: Mapping[str, Embeddings]) -> bytes:
    """One recording's embeddings by tap as an .npz archive."""
    arrays: dict[str, np.ndarray] = {}
    for number, (tap, part) in enumerate(embeddings.items()):
        columns = {**part.index.columns(), "vectors": np.asarray(part)}
        texts = {"tap": np.array(tap), "spec": np.array(part.spec.to_json())}
        arrays |= {f"{number}.{name}": array for name, array in {**columns, **texts}.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def embeddings_from_bytes(data: bytes) -> Any:
    """What `embeddings_to_bytes` was given; the embeddings alone where the tap has no name."""
    with np.load(io.BytesIO(data)) as arrays:
        found: dict[str, Embeddings] = {}
        for number in range(sum(name.endswith(".tap") for name in arrays)):
            part = {
                name.partition(".")[2]: arrays[name]
                for name in arrays
                if name.startswith(f"{number}.")
            }
            sources = part["source"]
            index = RowIndex.of_recording(
                str(sources[0]) if len(sources) else "",
                part["window"],
                part["start_seconds"],
                part["end_seconds"],
                part["span"],
                part.get("token"),
            )
            spec = EmbeddingSpec.from_json(str(part["spec"]))
            found[str(part["tap"])] = Embeddings(part["vectors"], index, spec)
    return found.get("", found)

"""Recordings and rows for the tests of collections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from qwen_audio.collection.collection import Collection
from recordings import sound

SAMPLE_RATE_HZ = 16_000


def write_recording(path: Path, seconds: float, seed: int, rate: int = SAMPLE_RATE_HZ) -> Path:
    """Write a mono recording to a path whose folder may not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds, rate, seed=seed)[0], rate)
    return path


def rows_by_window(collection: Collection) -> dict[tuple[str, int], dict[str, Any]]:
    """(file name, window) → row; fails on duplicates."""
    rows = collection.table.to_arrow().to_pylist()
    keyed = {(Path(row["source"]).name, row["window"]): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def vectors_by_window(collection: Collection) -> dict[tuple[str, int], tuple[str, bytes]]:
    """(file name, window) → content hash and vector: equal however a collection was made."""
    return {
        key: (row["content_hash"], np.asarray(row["vector"], np.float16).tobytes())
        for key, row in rows_by_window(collection).items()
    }


def add_rows(
    collection: Collection, vectors: np.ndarray[Any, Any], **columns: Sequence[Any]
) -> None:
    """Add rows with these vectors, bypassing indexing; one window of each of as many sources."""
    import pyarrow as pa

    first = len(collection)
    schema = collection.table.schema
    values: dict[str, Any] = {
        "source": [f"/x/{first + k}.wav" for k in range(len(vectors))],
        "window": [0] * len(vectors),
        "start_seconds": [0.0] * len(vectors),
        "end_seconds": [10.0] * len(vectors),
        "norm": [1.0] * len(vectors),
        **columns,
    }
    arrays = []
    for field in schema:
        if field.name == "vector":
            flat = pa.array(vectors.astype(field.type.value_type.to_pandas_dtype()).ravel())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        else:
            arrays.append(pa.array(values.get(field.name, [None] * len(vectors)), field.type))
    collection.table.add(pa.Table.from_arrays(arrays, schema=schema))


def update_rows(collection: Collection, rows: list[dict[str, Any]], **options: Any) -> None:
    """Write some columns of the rows of sources, bypassing indexing; options are LanceDB's."""
    import pyarrow as pa

    schema = pa.schema([collection.table.schema.field(name) for name in rows[0]])
    merge = collection.table.merge_insert("source").when_matched_update_all()
    merge.execute(pa.Table.from_pylist(rows, schema), **options)

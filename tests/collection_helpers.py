"""Recordings and rows for the tests of collections."""

from __future__ import annotations

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

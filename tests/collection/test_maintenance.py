"""Statistics, and prune."""

from __future__ import annotations

from pathlib import Path

import pytest

from collection_helpers import rows_by_window
from qwen_audio.collection.collection import Collection


def test_info_counts(collection: Collection) -> None:
    info = collection.info()
    assert (info.rows, info.sources, info.failures) == (7, 5, 0)
    assert info.audio_seconds == pytest.approx(2 + 3 + 4 + 25 + 1.5)
    assert info.vectors == "fixed_size_list<item: halffloat>[64]"
    assert info.bytes >= 7 * 64 * 2
    assert info.spec["tap"] == "audio_tower"
    recordings = {Path(row["source"]).name: row for row in collection.recordings()}
    assert recordings["long.flac"]["windows"] == 3
    assert [Path(row["source"]).name for row in collection.recordings("duration_seconds < 2")] == [
        "stereo.wav"
    ]
    assert "7 rows of audio_tower" in repr(collection)


def test_prune_deletes_rows_of_missing_files(collection: Collection, folder: Path) -> None:
    missing = folder / "deep" / "c.wav"
    missing.unlink()
    assert collection.index(folder).rows == 7
    assert collection.prune() == [str(missing)]
    assert ("c.wav", 0) not in rows_by_window(collection)
    assert collection.prune() == []

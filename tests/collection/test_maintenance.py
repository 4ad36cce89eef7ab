"""Statistics, prune and verify."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collection_helpers import rows_by_window, write_recording
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import OptionError


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


@pytest.mark.slow
def test_verify_reports_problems(collection: Collection, folder: Path) -> None:
    with pytest.raises(OptionError, match="sample=0: use a whole number from 1 on"):
        collection.verify(sample=0)
    report = collection.verify()
    assert (report.checked, report.problems) == (5, ())
    assert report.lowest_cosine > 0.9999
    write_recording(folder / "a.wav", 1.0, 50)
    (problem,) = collection.verify().problems
    assert problem == f"{folder / 'a.wav'} has changed since it was indexed"
    collection.index(folder)
    collection.table.delete('"window" = 1')
    assert "lacks windows" in " ".join(collection.verify().problems)
    rows = collection.table.search().where("source LIKE '%b.flac'").to_arrow()
    collection.table.add(rows)
    assert "1 windows are there twice" in collection.verify().problems
    noise = np.random.default_rng(0).normal(size=64)
    literal = "[" + ", ".join(f"{x / np.linalg.norm(noise):.5f}" for x in noise) + "]"
    collection.table.update(where="source LIKE '%c.wav'", values_sql={"vector": literal})
    assert any("c.wav#0: cosine" in problem for problem in collection.verify().problems)

"""Similarity search, full-text search, conditions, and the approximate index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import qwen_audio as qa
from collection_helpers import (
    SAMPLE_RATE_HZ,
    add_rows,
    rows_by_window,
    update_rows,
    write_recording,
)
from qwen_audio.collection import indices
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import CollectionError, OptionError


def test_search_by_audio_and_by_row(collection: Collection, folder: Path) -> None:
    results = collection.search(folder / "b.flac", include_self=True)
    assert len(results) == 7
    assert [result.rank for result in results] == list(range(1, 8))
    assert (results[0].source, results[0].id) == (str(folder / "b.flac"), f"{folder / 'b.flac'}#0")
    assert results[0].score == pytest.approx(1, abs=2e-3)
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True)
    by_id = collection.search(like=str(folder / "b.flac"))
    assert [result.id for result in by_id] == [result.id for result in results[1:]]
    later = collection.search(like=f"{folder / 'long.flac'}#2", limit=3)
    assert len(later) == 3
    assert f"{folder / 'long.flac'}#2" not in [result.id for result in later]
    table = rows_by_window(collection)
    query = np.asarray(table["b.flac", 0]["vector"], np.float32)
    for result in by_id:
        row = table[Path(result.source).name, result.columns["window"]]
        assert result.score == pytest.approx(
            float(query @ np.asarray(row["vector"], np.float32)), abs=2e-3
        )
    third = next(result for result in results if result.id.endswith("long.flac#2"))
    assert str(third) == f"{third.rank:2}  {third.score:.3f}  {third.id} at 0:20–0:25"
    places = (third.source, third.window, third.start_seconds, third.end_seconds)
    assert places == (str(folder / "long.flac"), 2, 20.0, 25.0)
    assert results.spec == collection.spec
    heard = collection.waveform(third.source, third.window).samples
    np.testing.assert_array_equal(heard, qa.load_waveform(third.source).samples[320_000:])
    with pytest.raises(CollectionError, match=r"long\.flac' has no window 3"):
        collection.waveform(third.source, 3)
    again = collection.search(like=third, include_self=True, limit=1)
    assert [(row.id, row.rank) for row in again] == [(third.id, 1)]
    assert again[0].score == pytest.approx(1, abs=2e-3)


def test_a_recording_is_not_compared_with_itself(collection: Collection, folder: Path) -> None:
    """Given by its path of any form, or opened from it; the others' scores are the same."""
    path = folder / "long.flac"
    everything = collection.search(path, include_self=True)
    others = [(row.id, row.score) for row in everything if row.source != str(path)]
    link = folder.parent / "link.flac"
    link.symlink_to(path)
    relative = f"{folder.parent}/./music/long.flac"
    with path.open("rb") as file:
        for query in (path, str(path), relative, path.as_uri(), link, file):
            results = collection.search(query)
            assert [(row.id, row.score) for row in results] == others
            assert results.left_out == str(path)
    waveform = qa.load_waveform(path)  # its audio alone is the query
    assert [row.id for row in collection.search(waveform)] == [row.id for row in everything]
    assert everything.left_out is collection.search(waveform).left_out is None


def test_results_say_what_their_scores_mean(collection: Collection, folder: Path) -> None:
    row = str(folder / "a.wav")
    results = collection.search(like=row, limit=2)
    everything = collection.search(like=row, include_self=True)
    median = np.median([result.score for result in everything])
    assert results.typical_score == pytest.approx(median, abs=2e-3)
    assert results.explanation == (
        "scores: cosine similarity with the query; 1 is the same direction, "
        f"{results.typical_score:.3f} the median of this collection's windows"
    )
    page = results._repr_html_()
    assert page.startswith(f'<table><caption style="text-align: left">2 windows; {"scores: "}')
    assert f"<td>{results[1].id}</td>" in page
    assert "<th>caption</th>" not in page
    for options in ({"vector": [1.0]}, {"caption": "a"}):
        with pytest.raises(OptionError, match="include_self has no effect"):
            collection.search(include_self=True, **options)


def test_results_are_saved(collection: Collection, folder: Path, tmp_path: Path) -> None:
    results = collection.search(like=str(folder / "a.wav"), limit=2)
    saved = json.loads(results.save(tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [row["source"] for row in saved["rows"]] == [result.source for result in results]
    assert saved["rows"][0] | {"score": 0} == results[0].row() | {"score": 0}
    assert saved["rows"][0]["score"] == pytest.approx(results[0].score, abs=1e-6)
    assert saved["spec"]["tap"] == "audio_tower"
    with np.load(results.save(tmp_path / "found.npz")) as arrays:
        assert arrays["window"].tolist() == [result.window for result in results]


def test_conditions_and_limits(collection: Collection, folder: Path) -> None:
    results = collection.search(folder / "a.wav", where='duration_seconds > 20 AND "window" > 0')
    assert sorted(result.columns["window"] for result in results) == [1, 2]
    name = str(folder / "a.wav").replace("'", "''")
    assert collection.search(folder / "a.wav", where=f"source = '{name}'") == []
    assert len(collection.search(folder / "a.wav", limit=2)) == 2
    wrong = r"where='nonsense = 1' can't be used \(.*No field named nonsense\): it takes one SQL"
    for operation in (
        lambda: collection.search(folder / "a.wav", where="nonsense = 1"),
        lambda: collection.recordings("nonsense = 1"),
        lambda: collection.export(folder / "x.npz", "nonsense = 1"),
        lambda: collection.map(where="nonsense = 1"),
    ):
        with pytest.raises(OptionError, match=wrong):
            operation()
    assert len(collection.search(like=str(folder / "a.wav"), limit=2**31 - 1)) == 6
    for limit in (0, 2**31):
        with pytest.raises(OptionError, match=f"limit={limit}: use a whole number"):
            collection.search(folder / "a.wav", limit=limit)
    with pytest.raises(OptionError, match="one of audio, caption=, like= and vector="):
        collection.search()
    with pytest.raises(OptionError, match="one of audio, caption=, like= and vector="):
        collection.search(folder / "a.wav", like="x")
    with pytest.raises(CollectionError, match="has no row"):
        collection.search(like="nowhere.wav")
    with pytest.raises(CollectionError, match="has no captions"):
        collection.search(caption="slow piece")
    with pytest.raises(qa.AudioError):
        collection.search(folder / "none.wav")


@pytest.mark.slow
def test_full_text_search(tmp_path: Path, folder: Path) -> None:
    embedded = qa.load(dtype="float32")
    collection = Collection.create(
        tmp_path / "captions.lance", embedded, describe=True, window_seconds=30
    )
    soundfile.write(folder / "silence.wav", np.zeros(2 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    collection.index(folder)
    rows = collection.table.to_arrow().to_pylist()
    captions = embedded.describe([row["source"] for row in rows])
    assert [row["caption"] for row in rows] == captions
    results = collection.search(caption="silence")
    assert [Path(result.source).name for result in results] == ["silence.wav"]
    assert results[0].caption is not None
    assert collection.search(caption="silence", where="duration_seconds > 3") == []
    write_recording(folder / "later.wav", 3.0, 20)
    collection.index(folder)
    caption = str(embedded.describe(folder / "later.wav"))
    sources = [result.source for result in collection.search(caption=caption)]
    assert str(folder / "later.wav") in sources
    with pytest.raises(OptionError, match="caption is empty"):
        collection.search(caption=" ")


@pytest.mark.slow
def test_the_index_finds_what_exact_search_finds(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On clustered vectors, as those of recordings are: recall@10 of at least 0.95."""
    monkeypatch.setattr(indices, "ANN_MIN_ROWS", 2000)
    collection = Collection.create(tmp_path / "many.lance", model, tap="encoder.1")
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 64))
    vectors = centres[random.integers(0, 60, 4000)] + 0.7 * random.normal(size=(4000, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    add_rows(collection, vectors[:3000])
    indices.update_indices(collection._window_table)
    add_rows(collection, vectors[3000:])  # rows that are not in the index are scanned as well
    assert collection.info().indices == {"vector_idx": 1000}
    recalls = []
    for query in range(0, 4000, 100):
        approximate = {result.id for result in collection.search(like=f"/x/{query}.wav")}
        exact = {result.id for result in collection.search(like=f"/x/{query}.wav", exact=True)}
        recalls.append(len(approximate & exact) / len(exact))
    assert np.mean(recalls) >= 0.95
    indices.update_indices(collection._window_table)
    assert collection.info().indices == {"vector_idx": 0}
    # An updated row waits outside the index for others, and is scanned meanwhile.
    collection._window_table.add_columns([pa.field("mood", pa.string())])
    update_rows(collection, [{"source": "/x/7.wav", "mood": "calm"}])
    indices.update_indices(collection._window_table)
    assert collection.info().indices == {"vector_idx": 1}
    assert collection.search(like="/x/8.wav", where="mood = 'calm'")[0].id == "/x/7.wav#0"


@pytest.mark.slow
def test_a_table_of_many_versions_is_compacted(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a long run: searches read as few files as in a table written at once."""
    monkeypatch.setattr(indices, "ANN_MIN_ROWS", 400)
    collection = Collection.create(tmp_path / "long.lance", model, tap="encoder.1")
    vectors = np.random.default_rng(0).normal(size=(600, collection._window_table.width))
    add_rows(collection, vectors[:500])
    indices.update_indices(collection._window_table)
    for block in np.array_split(vectors[500:], 50):
        add_rows(collection, block)
    table: Any = collection.table
    assert table.stats()["fragment_stats"]["num_fragments"] == 51
    indices.update_indices(collection._window_table)
    assert len(table.list_versions()) > 50
    # Rows that were in the index, and those that were not.
    assert table.stats()["fragment_stats"]["num_fragments"] == 2
    assert collection.info().indices == {"vector_idx": 0}
    # A few rows more are scanned; the index is not written again for them.
    version = table.version
    add_rows(collection, vectors[:5])
    indices.update_indices(collection._window_table)
    assert (collection.table.version, collection.info().indices) == (version + 1, {"vector_idx": 5})
    assert collection.search(vector=vectors[0], limit=2)[1].score > 0.99
    add_rows(collection, vectors[:5])
    indices.update_indices(collection._window_table)
    assert collection.info().indices == {"vector_idx": 0}

"""Rows without vectors: ids, order and filter; columns that colour a map."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import qwen_audio as qa
from qwen_audio.collection.dimension_reduction import pca_points, umap_points
from qwen_audio.collection.map_columns import (
    NONE,
    OTHER,
    best_column,
    colour_columns,
    column_colours,
    column_label,
)
from qwen_audio.collection.rows import CollectionRows


def rows_of(**columns: Any) -> CollectionRows:
    """Two windows a recording, in three folders; and further columns."""
    count = len(next(iter(columns.values())))
    standard = {
        "source": [f"/secret/{'abc'[k % 3]}/{k // 2:03}.wav" for k in range(count)],
        "window": pa.array([k % 2 for k in range(count)], pa.int32()),
        "source_bytes": [1] * count,
    }
    return CollectionRows(pa.table(standard | columns))


def test_ids_are_stable_and_tell_no_path() -> None:
    rows = rows_of(caption=["a", "b", "c", "d"])
    source = rows[3]["source"]
    row_id = rows.id(3)
    assert row_id == f"{hashlib.sha256(source.encode()).hexdigest()[:16]}-1"
    assert rows.find(row_id) == rows.index_of(source, 1) == 3
    assert rows.index_of(source, 2) is None
    for unknown in ("", "x", f"{row_id}0", row_id[:-1] + "9", "../" + row_id, "٣" * 16 + "-1"):
        with pytest.raises(qa.CollectionError, match="has no row"):
            rows.find(unknown)


def test_a_collection_reads_its_rows_in_one_order(collection: qa.Collection) -> None:
    rows, projection = collection.rows(), collection.map(method="pca")
    assert list(rows) == list(projection.rows)
    assert rows.version == collection.table.version
    assert [(row["source"], row["window"]) for row in rows] == sorted(
        (row["source"], row["window"]) for row in rows
    )
    assert "vector" not in rows[0]
    assert rows[-1] == rows[len(rows) - 1]
    assert rows[1:3] == [rows[1], rows[2]]
    with pytest.raises(IndexError):
        _ = rows[len(rows)]


def test_order_and_filter() -> None:
    rows = rows_of(
        caption=["A Flute", "drums", None, "a flute and DRUMS"], level=[2.0, None, -1.0, 2.0]
    )
    assert rows.order("level").tolist() == [2, 0, 3, 1]  # equal ones stay, missing ones last
    assert rows.order("level", is_descending=True).tolist() == [0, 3, 2, 1]
    assert rows.order("caption").tolist() == [0, 3, 1, 2]
    assert rows.order("recording").tolist() == [0, 1, 2, 3]
    assert rows.containing("flute drums").tolist() == [False, False, False, True]
    assert rows.containing("000.WAV").tolist() == [True, True, False, False]
    assert rows.containing("").all()
    assert not rows.containing("secret").any()  # a folder, which visitors don't see
    with pytest.raises(qa.OptionError, match="no column 'nonsense'"):
        rows.order("nonsense")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("peak_dbfs", "peak level (dBFS)"),
        ("start_seconds", "start (s)"),
        ("sampling_rate", "sampling rate (Hz)"),
        ("spectral_centroid_hz", "spectral centroid (Hz)"),
        ("artist", "artist"),
        ("__proto__", "__proto__"),
        ("A name", "A name"),
    ],
)
def test_columns_are_named_with_their_unit(name: str, label: str) -> None:
    assert column_label(name) == label


def test_colours_of_categories_and_numbers() -> None:
    kinds = [f"kind {k % 12}" for k in range(120)] + ["kind 0"] * 3 + [None] * 2
    levels = [float("nan"), None, *np.linspace(-60, 0, 123)]
    rows = rows_of(kind=kinds, level=levels, same=["x"] * 125, text=[str(k) for k in range(125)])
    assert colour_columns(rows) == ("folder", "kind", "level")
    assert colour_columns(rows, max_kinds=11) == ("folder", "level")
    kind = column_colours(rows, "kind")
    assert kind.categories[:2] == (("kind 0", 13), ("kind 1", 10))
    assert (len(kind.categories), kind.kinds) == (10, 12)
    assert kind.codes[0] == kind.codes[122] == 0
    assert (kind.codes[-2:] == NONE).all()
    assert (kind.codes == OTHER).sum() == 20
    level = column_colours(rows, "level")
    assert (level.low, level.high, level.is_cut) == (-60, 0, False)
    assert level.codes[:3].tolist() == [NONE, NONE, 0]
    assert level.codes[-1] == 254


def test_outliers_do_not_use_up_the_colours() -> None:
    numbers = [*np.linspace(0, 1, 999), 1e6]
    colours = column_colours(rows_of(level=numbers), "level")
    assert colours.is_cut
    assert colours.high == pytest.approx(0.99, abs=0.02)
    assert colours.codes[-1] == 254


def test_the_best_column_separates_vectors_and_not_only_rows() -> None:
    random = np.random.default_rng(0)
    loud = random.integers(0, 2, 300)
    vectors = random.standard_normal((300, 8)).astype(np.float32)
    vectors[:, 0] += 4 * loud
    rows = rows_of(
        # As many groups as pairs of rows, which say nothing about the vectors.
        pair=[str(k // 2) for k in range(300)],
        loud=["yes" if each else "no" for each in loud],
        other=random.standard_normal(300),
    )
    columns = colour_columns(rows)
    assert {"pair", "loud", "other"} <= set(columns)
    best = best_column(rows, vectors, columns)
    assert best is not None
    assert best[0] == "loud"
    between = np.square(vectors - vectors.mean(0)).sum()
    within = sum(np.square(vectors[loud == k] - vectors[loud == k].mean(0)).sum() for k in (0, 1))
    assert best[1] == pytest.approx(1 - (within / 298) / (between / 299), rel=1e-4)
    assert best_column(rows, np.zeros_like(vectors), columns) is None


@pytest.mark.parametrize("rows", [7, 300])
def test_principal_components(rows: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((rows, 40)).astype(np.float16)
    points = pca_points(vectors, 0)
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(
        np.abs(points), np.abs(left[:, :2] * sizes[:2]), rtol=1e-3, atol=1e-3
    )
    assert pca_points(np.ones((1, 3), np.float32), 0).tolist() == [[0, 0]]


def test_of_many_rows_umap_is_fitted_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are put among their neighbours: rows of a group stay together."""
    monkeypatch.setattr("qwen_audio.collection.dimension_reduction.UMAP_FITTED_ROWS", 60)
    fitted: list[Any] = []

    def fit(vectors: Any, _seed: int) -> Any:
        fitted.append(vectors)
        return np.asarray(vectors[:, :2], np.float32)

    monkeypatch.setattr("qwen_audio.collection.dimension_reduction._fit_umap", fit)
    random = np.random.default_rng(0)
    groups = random.integers(0, 3, 200)
    vectors = np.eye(6)[groups] + 0.05 * random.standard_normal((200, 6))
    points = umap_points(vectors.astype(np.float16), 0)
    assert len(fitted[0]) == 60
    np.testing.assert_allclose(points, np.eye(6)[groups][:, :2], atol=0.2)
    np.testing.assert_array_equal(points, umap_points(vectors.astype(np.float16), 0))

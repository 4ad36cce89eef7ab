"""Dynamic time warping: against exhaustive search, the recurrence, and known warps."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.analysis import alignment
from qwen_audio.analysis.alignment import Alignment, _distances, dtw, paired_rows
from recordings import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


def path_total(distances: np.ndarray, path: Any) -> float:
    """Sakoe and Chiba's symmetric weights: a step in both counts twice, and so does the first."""
    pairs = list(map(tuple, path))
    total = 2 * float(distances[pairs[0]])
    for before, now in itertools.pairwise(pairs):
        total += (sum(now) - sum(before)) * float(distances[now])
    return total


def all_paths(rows: int, columns: int) -> Any:
    if rows == columns == 1:
        yield [(0, 0)]
        return
    for row, column in ((rows - 1, columns), (rows, columns - 1), (rows - 1, columns - 1)):
        if row and column:
            for path in all_paths(row, column):
                yield [*path, (rows - 1, columns - 1)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 4), (5, 4)])
def test_no_path_is_shorter(shape: tuple[int, int]) -> None:
    distances = np.random.default_rng(sum(shape)).uniform(size=shape)
    path, total = dtw(distances)
    assert total == pytest.approx(path_total(distances, path))
    assert total == pytest.approx(min(path_total(distances, p) for p in all_paths(*shape)))
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [shape[0] - 1, shape[1] - 1]
    assert {tuple(step) for step in np.diff(path, axis=0).tolist()} <= {(0, 1), (1, 0), (1, 1)}


def test_its_total_is_that_of_the_recurrence() -> None:
    """Cell by cell, on a matrix too large for all paths."""
    distances = np.random.default_rng(7).uniform(size=(40, 61))
    totals = np.full((41, 62), np.inf)
    totals[0, 0] = 0
    for i, j in np.ndindex(distances.shape):
        d = distances[i, j]
        before = totals[i, j] + 2 * d, totals[i, j + 1] + d, totals[i + 1, j] + d
        totals[i + 1, j + 1] = min(before)
    path, total = dtw(distances)
    assert total == pytest.approx(totals[-1, -1])
    assert path_total(distances, path) == pytest.approx(total)


def test_a_known_warp_is_found() -> None:
    """Rows of one recording, some of them repeated: the path goes through the equal pairs."""
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    repeats = np.random.default_rng(1).integers(1, 4, 30)
    source = np.repeat(np.arange(30), repeats)
    times = 0.04 * np.arange(30), 0.04 * np.arange(len(source))
    found = Alignment.of_rows("audio_tower", (rows, rows[source]), times)
    # Means differ a little, as some rows count more often in one of them.
    assert np.abs(found.path[:, 0] - source[found.path[:, 1]]).max() <= 1
    assert (found.path[:, 0] == source[found.path[:, 1]]).mean() > 0.95
    assert found.distance < 0.1
    # What is added to all rows of one of them changes nothing.
    moved = Alignment.of_rows("audio_tower", (rows, rows[source] + 5.0), times)
    np.testing.assert_array_equal(moved.path, found.path)
    assert found.distance == pytest.approx(
        dtw(_distances(rows, rows[source]))[1] / (30 + len(source))
    )
    same = Alignment.of_rows("audio_tower", (rows, rows), (times[0], times[0]))
    assert same.distance == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(same.path, np.stack([np.arange(30)] * 2, axis=1))


def test_rows_of_other_rates_are_paired_by_the_path() -> None:
    path = np.array([[0, 0], [0, 1], [1, 2]])
    starts = 0.04 * np.arange(2), 0.04 * np.arange(3)
    twice = 0.02 * np.arange(4), 0.02 * np.arange(6)
    expected = [[0, 0], [1, 1], [0, 2], [1, 3], [2, 4], [3, 5]]
    assert paired_rows(path, starts, twice).tolist() == expected
    assert paired_rows(path, starts, starts).tolist() == path.tolist()
    half = 0.08 * np.arange(1), 0.08 * np.arange(2)
    assert paired_rows(path, starts, half).tolist() == [[0, 0], [0, 0]]


def test_runs_are_steps_within_a_window_of_each() -> None:
    path = np.array([[0, 0], [1, 1], [1, 2], [2, 3], [3, 3]])
    found = Alignment("mel", path, (np.arange(4.0), np.arange(4.0)), 0.0)
    assert found.runs(([2, 2], [2, 2])) == [
        ((0, 0), slice(0, 2)),
        ((0, 1), slice(2, 3)),
        ((1, 1), slice(3, 5)),
    ]


def test_too_many_rows_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MAX_CELLS", 11)
    rows = np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32)
    with pytest.raises(qa.OptionError, match=r"of 4 rows with 3 rows at mel: .* at most 11"):
        Alignment.of_rows("mel", rows, (np.arange(4.0), np.arange(3.0)))


@pytest.mark.parametrize("metric", ["cosine", "centred_cosine"])
def test_recordings_are_aligned_across_windows(checkpoint: Path, metric: Any) -> None:
    """As their whole hidden states are, whichever windows the path goes through."""
    model = qa.load(checkpoint)
    one, two = sound(1.7, 16_000, seed=1)[0], sound(2.6, 16_000, seed=2)[0]
    options: dict[str, Any] = {"window_seconds": 1.0, **RATE}
    taps = ["mel", "encoder.1", "lm.1"]
    done: list[tuple[str, int, int]] = []
    found = model.compare(
        *(one, two),
        taps=taps,
        metric=metric,
        alignment="dtw",
        columns=10,
        on_progress=lambda stage, now, total, *_: done.append((stage, now, total or 0)),
        **options,
    )
    first, second = model.activations([one, two], taps=[*taps, "audio_tower"], **options)
    aligned = Alignment.of(first["audio_tower"], second["audio_tower"])
    expected = qa.Comparison.of(
        ((first[tap], second[tap]) for tap in taps), 10, metric=metric, alignment=aligned
    )
    np.testing.assert_allclose(found.overall, expected.overall, atol=1e-5)
    np.testing.assert_allclose(found.by_time, expected.by_time, atol=1e-5)
    assert found.path_seconds is not None
    np.testing.assert_allclose(found.path_seconds, aligned.path_seconds)
    assert (found.alignment, expected.alignment) == ("dtw", "dtw")
    assert found.column_seconds * found.by_time.shape[1] == pytest.approx(1.7, abs=0.05)
    assert done[0] == ("reading", 0, 3)
    assert done[-1][0] == "comparing"
    assert done[-1][1] == done[-1][2] == len(aligned.runs(([25, 17], [25, 25, 15])))


def test_alignment_options(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    clip = sound(0.5, 16_000)[0]
    with pytest.raises(qa.OptionError, match="alignment='both': use time, dtw"):
        alignment.check_alignment("both")
    with pytest.raises(qa.OptionError, match="'mel' does nothing without alignment='dtw'"):
        model.compare(clip, clip, alignment_tap="mel", **RATE)
    rows = model.activations(clip, taps=["mel", "lm.0"], **RATE)
    with pytest.raises(qa.OptionError, match=r"mel can't be aligned with lm\.0"):
        Alignment.of(rows["mel"], rows["lm.0"])

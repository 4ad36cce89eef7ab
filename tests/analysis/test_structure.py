"""What is seen in rows: held against plain definitions, and what must not change it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwen_audio import OptionError
from qwen_audio.analysis import similarity
from qwen_audio.analysis import structure as views
from qwen_audio.inference import reducers

numbers = st.floats(-100, 100, width=32)
matrices = arrays.arrays(
    np.float32, st.tuples(st.integers(4, 30), st.integers(1, 12)), elements=numbers
)
seeds = st.integers(0, 10_000)


def rows_of(seed: int, rows: int = 40, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@given(matrices)
def test_similarity_is_the_cosine_of_what_differs(rows: np.ndarray) -> None:
    matrix = views.self_similarity(rows)
    assert matrix.shape == (len(rows), len(rows))
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max() <= 1
    np.testing.assert_array_equal(matrix, matrix.T)
    centred = rows.astype(float) - rows.astype(float).mean(0)
    for i, j in ((0, 1), (2, 3)):
        lengths = np.linalg.norm(centred[i]) * np.linalg.norm(centred[j])
        if lengths > 1e-6 * max(1.0, float(np.abs(rows).max()) ** 2):
            assert matrix[i, j] == pytest.approx(centred[i] @ centred[j] / lengths, abs=1e-4)
    np.testing.assert_allclose(views.self_similarity(rows + 0 * rows[0]), matrix)


def test_rows_that_are_all_the_same_are_no_news() -> None:
    same = np.full((50, 8), 0.1, np.float32)
    assert not views.self_similarity(same).any()
    assert not np.nan_to_num(views.novelty(views.self_similarity(same), 8)).any()
    assert views.section_starts(views.novelty(views.self_similarity(same), 8), 4) == []
    assert (views.pca_colours(same) == 0.5).all()


@given(matrices)
def test_colours_are_colours(rows: np.ndarray) -> None:
    colours = views.pca_colours(rows)
    assert colours.shape == (len(rows), 3)
    assert colours.min() >= 0
    assert colours.max() <= 1


@pytest.mark.slow
@given(seeds, st.sampled_from([(40, 6), (10, 60)]))
def test_colours_are_the_principal_components(seed: int, shape: tuple[int, int]) -> None:
    from sklearn.decomposition import PCA

    rows = rows_of(seed, *shape)
    scores = PCA(3, svd_solver="full").fit_transform(rows)
    for channel, theirs in zip(views.pca_colours(rows).T, scores.T, strict=True):
        inner = (channel > 0) & (channel < 1)  # what is not clipped
        assert abs(np.corrcoef(channel[inner], theirs[inner])[0, 1]) > 0.999


@given(seeds, st.integers(10, 30), st.integers(8, 20))
def test_novelty_peaks_where_one_thing_ends_and_another_begins(
    seed: int, before: int, after: int
) -> None:
    random = np.random.default_rng(seed)
    first, second = random.standard_normal((2, 16))
    rows = np.concatenate([np.tile(first, (before, 1)), np.tile(second, (after, 1))])
    rows += 0.05 * random.standard_normal(rows.shape)
    curve = views.novelty(views.self_similarity(rows), 12)
    assert np.isnan(curve[:6]).all()
    assert np.isnan(curve[len(rows) - 5 :]).all()
    assert np.nanargmax(curve) == before
    assert views.section_starts(curve, 6) == [before]
    assert 0.9 < np.nanmax(curve) <= 1


def test_novelty_is_a_checkerboard_over_the_diagonal() -> None:
    matrix = views.self_similarity(rows_of(3))
    curve = views.novelty(matrix, 6)
    place, half = 17, 3
    total = scale = 0.0
    for i in range(-half, half):
        for j in range(-half, half):
            x, y = (i + 0.5) / half, (j + 0.5) / half
            weight = np.exp(-2 * x * x) * np.exp(-2 * y * y) * (1 if x * y > 0 else -1)
            total += weight * matrix[place + i, place + j]
            scale += abs(weight)
    assert curve[place] == pytest.approx(total / scale, abs=1e-6)
    assert np.isfinite(views.novelty(matrix, 40)).sum() == 1
    assert np.isnan(views.novelty(matrix, 42)).all()


@given(seeds)
def test_sections_are_apart(seed: int) -> None:
    curve = np.random.default_rng(seed).random(100).astype(np.float32)
    curve[:5] = curve[-5:] = np.nan
    curve[[5, -6]] = 0
    found = views.section_starts(curve, 7)
    assert found == sorted(found)
    assert all(later - earlier > 7 for earlier, later in itertools.pairwise(found))
    assert all(np.isfinite(curve[place]) for place in found)
    assert int(np.nanargmax(curve)) in found


def test_a_curve_that_begins_or_ends_high_has_no_peak_there() -> None:
    curve = np.full(60, np.nan, np.float32)
    curve[10:50] = [9.0, *range(8), *range(7, 0, -1), *[0.0] * 15, *range(9)]
    assert views.section_starts(curve, 6) == [18]


@given(seeds, st.integers(1, 40))
def test_columns_average_frames(seed: int, columns: int) -> None:
    rows = rows_of(seed)
    middles = (np.arange(40) + 0.5) * 0.04
    made = views.even_columns(rows, middles, np.ones(40), 1.6, columns)
    assert made.shape == (columns, 6)
    if columns == 40:
        np.testing.assert_array_equal(made, rows)
    if 40 % columns == 0:
        np.testing.assert_allclose(made, rows.reshape(columns, -1, 6).mean(1), atol=1e-6)
    # Groups that stand for several frames weigh as much.
    pairs = rows.reshape(20, 2, 6).mean(1)
    if columns in (1, 2, 4, 5, 10, 20):
        grouped = views.even_columns(
            pairs, middles.reshape(20, 2).mean(1), np.full(20, 2.0), 1.6, columns
        )
        np.testing.assert_allclose(grouped, made, atol=1e-6)


def test_a_column_without_a_frame_takes_its_neighbours() -> None:
    rows = np.array([[1.0], [2.0], [9.0]], np.float32)
    made = views.even_columns(rows, np.array([0.1, 0.3, 3.9]), np.array([1.0, 3.0, 1.0]), 4.0, 4)
    assert made[0] == 1.75
    assert made[3] == 9
    assert set(made[1:3].ravel().tolist()) <= {1.75, 9.0}


@given(seeds, st.integers(1, 3000))
def test_the_envelope_holds_every_sample(seed: int, points: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(1000).astype(np.float32)
    low, high = views.envelope(samples, points)
    assert len(low) == min(points, 1000)
    assert low.min() == samples.min()
    assert high.max() == samples.max()
    assert (low <= high).all()


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    return float(similarity.cka_matrix([x, y])[0, 1])


@given(seeds)
def test_cka_sees_past_rotation_size_and_place(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = rows_of(seed)
    turn, _ = np.linalg.qr(random.standard_normal((6, 6)))
    moved = (37.0 * rows @ turn + random.standard_normal(6)).astype(np.float32)
    assert linear_cka(rows, moved) == pytest.approx(1, abs=1e-4)
    assert abs(linear_cka(rows, rows_of(seed + 1, 40, 9))) < 0.5


def test_cka_is_unbiased_by_many_dimensions() -> None:
    """Of unrelated views it is nought on average, though they are far wider than they are many."""
    found = [
        linear_cka(rows_of(seed, 30, 500), rows_of(seed + 1000, 30, 500)) for seed in range(30)
    ]
    assert abs(np.mean(found)) < 0.02


def test_cka_is_the_definition() -> None:
    """Song et al.'s estimate, term by term."""
    x, y = rows_of(1).astype(float), rows_of(2, 40, 9).astype(float)
    y[:, :3] += x[:, :3]

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, el = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(el, 0)
        n, one = len(k), np.ones(len(k))
        sums = (one @ k @ one) * (one @ el @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ el) + sums - 2 / (n - 2) * (one @ k @ el @ one)) / (n * (n - 3)))

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert expected > 0.1
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-5)
    same = similarity.cka_matrix([x, y, np.ones((40, 3))])
    assert np.isnan(same[2]).all()
    assert same[0, 1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("left", "right"), [(3, 3), (10, 11)])
def test_cka_needs_the_same_examples(left: int, right: int) -> None:
    with pytest.raises(OptionError, match="the same number for all, 4 or more"):
        linear_cka(rows_of(0, left), rows_of(0, right))


@given(matrices)
def test_norms(rows: np.ndarray) -> None:
    np.testing.assert_allclose(
        reducers.l2_norms(rows), np.sqrt((rows.astype(float) ** 2).sum(1)), rtol=1e-5, atol=1e-6
    )

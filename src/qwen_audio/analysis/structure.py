"""Structure of a sequence of hidden states: PCA colours, self-similarity, novelty, sections."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

__all__ = [
    "envelope",
    "even_columns",
    "novelty",
    "pca_colours",
    "section_starts",
    "self_similarity",
    "standardised",
]


def even_columns(
    rows: Float[np.ndarray, "rows width"],
    middles: Float[np.ndarray, "rows"],
    counts: Float[np.ndarray, "rows"],
    span_seconds: float,
    columns: int,
) -> Float32[np.ndarray, "columns width"]:
    """Average rows onto an even time grid.

    Args:
        middles: centre of each row in seconds, 0 to `span_seconds`.
        counts: weight of each row: how many frames it is the mean of.
        columns: number of columns that `span_seconds` is divided into.

    Returns:
        The weighted mean of the rows in each column; a column without rows copies its neighbour.
    """
    column = np.clip((middles / span_seconds * columns).astype(np.int64), 0, columns - 1)
    order = np.argsort(column, kind="stable")
    filled, starts = np.unique(column[order], return_index=True)
    weights = counts[order, None].astype(np.float64)
    total = np.add.reduceat(rows[order] * weights, starts, axis=0)
    means = (total / np.add.reduceat(weights, starts, axis=0)).astype(np.float32)
    nearest = np.clip(np.searchsorted(filled, np.arange(columns)), 0, len(filled) - 1)
    return means[nearest]


def envelope(samples: Float[np.ndarray, "samples"], points: int) -> Float32[np.ndarray, "2 points"]:
    """Lowest and highest sample of each of `points` equal segments (at most one per sample)."""
    starts = np.unique(
        np.linspace(0, samples.size, min(points, samples.size), endpoint=False, dtype=np.int64)
    )
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    return np.stack([low, high]).astype(np.float32)


def standardised(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows width"]:
    """Each dimension with mean 0 and standard deviation 1, so that none hides the others."""
    deviation = rows.std(axis=0, keepdims=True)
    return ((rows - rows.mean(axis=0, keepdims=True)) / np.maximum(deviation, 1e-12)).astype(
        np.float32
    )


def pca_colours(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows 3"]:
    """The first three principal components of the rows as red, green and blue, 0 to 1.

    Similar rows have similar colours. Each component is scaled from its 1st to its 99th percentile;
    one with less than a millionth of the first one's variance stays at 0.5. Its sign is chosen so
    that the row farthest from the mean is bright.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    # Both products have the same nonzero eigenvalues: the smaller one is decomposed.
    tall = len(centred) > centred.shape[1]
    values, vectors = np.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    colours = np.full((len(rows), 3), 0.5, np.float32)
    strongest = values[-1] if values.size else 0.0
    for channel in range(min(3, values.size)):
        value, vector = values[-1 - channel], vectors[:, -1 - channel]
        if value <= max(1e-6 * strongest, 1e-12):
            break
        scores = centred @ vector if tall else vector
        scores = scores if np.abs(scores.max()) >= np.abs(scores.min()) else -scores
        low, high = np.percentile(scores, [1, 99])
        if high > low:
            colours[:, channel] = np.clip((scores - low) / (high - low), 0, 1)
    return colours


def self_similarity(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows rows"]:
    """Cosine similarity of all pairs of rows, −1 to 1; 0 for rows of norm 0.

    The mean of all rows is subtracted first: hidden states share a large common component, which
    would dominate their differences (Mu & Viswanath, "All-but-the-Top", 2018).
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # Rounding errors of identical rows have no meaningful direction.
    least = 1e-6 * max(float(np.abs(rows).max(initial=0)), 1e-30)
    units = np.where(lengths > least, centred / np.maximum(lengths, 1e-30), 0.0)
    return np.clip(units @ units.T, -1, 1).astype(np.float32)


def novelty(
    similarity: Float[np.ndarray, "columns columns"], kernel: int
) -> Float32[np.ndarray, "columns"]:
    """Novelty: how much the columns after a point differ from those before it.

    A Gaussian-tapered checkerboard kernel slides along the diagonal of the self-similarity matrix:
    similarity within each side minus similarity across (Foote, "Automatic audio segmentation using
    a measure of audio novelty", ICME 2000).

    Args:
        kernel: size of the kernel in columns: half before the column, half from it on.

    Returns:
        −1 to 1 (1: two homogeneous blocks, opposite to each other); NaN within half a kernel of
        either end, where the kernel does not fit.
    """
    columns, half = len(similarity), kernel // 2
    result = np.full(columns, np.nan, np.float32)
    if half < 1 or columns < 2 * half:
        return result
    offset = (np.arange(2 * half) - half + 0.5) / half
    taper = np.exp(-2 * offset**2) * np.sign(offset)
    board = np.outer(taper, taper)
    board /= np.abs(board).sum()
    for middle in range(half, columns - half + 1):
        if middle < columns:
            block = similarity[middle - half : middle + half, middle - half : middle + half]
            result[middle] = np.vdot(board, block)
    return result


def section_starts(curve: Float[np.ndarray, "columns"], min_distance: int) -> list[int]:
    """Columns at which sections start: the peaks of a novelty curve.

    A peak is the highest value within `min_distance` columns, and at least one standard deviation
    above the mean. The first and last finite values are no peaks, as the curve may rise beyond.
    """
    known = np.isfinite(curve)
    if not known.any():
        return []
    threshold = float(curve[known].mean() + curve[known].std())
    heights = np.where(known, curve, -np.inf)
    ends = set(np.flatnonzero(known)[[0, -1]].tolist())
    starts: list[int] = []
    for column in np.argsort(-heights, kind="stable"):
        height = heights[column]
        around = heights[max(0, column - min_distance) : column + min_distance + 1]
        far = all(abs(column - other) > min_distance for other in starts)
        peak = height > max(threshold, 1e-6) and height >= around.max() and column not in ends
        if peak and far:
            starts.append(int(column))
    return sorted(starts)

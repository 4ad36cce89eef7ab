"""Rows of a tap → what can be seen in them: colours, sameness, change, sections. Pure functions."""

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
    """Rows averaged onto an even grid of time.

    Args:
        middles: where in time the middle of each row lies, in seconds, 0 to `span_seconds`.
        counts: how many frames each row stands for: its weight in an average.
        columns: how many columns `span_seconds` is divided into.

    Returns:
        The weighted mean of the rows in each column; a column without one takes its neighbour's.
    """
    place = np.clip((middles / span_seconds * columns).astype(np.int64), 0, columns - 1)
    order = np.argsort(place, kind="stable")
    filled, starts = np.unique(place[order], return_index=True)
    weights = counts[order, None].astype(np.float64)
    total = np.add.reduceat(rows[order] * weights, starts, axis=0)
    means = (total / np.add.reduceat(weights, starts, axis=0)).astype(np.float32)
    nearest = np.clip(np.searchsorted(filled, np.arange(columns)), 0, len(filled) - 1)
    return means[nearest]


def envelope(samples: Float[np.ndarray, "samples"], points: int) -> Float32[np.ndarray, "2 points"]:
    """The lowest and the highest sample of each of `points` stretches of equal length.

    There are as many points as samples where there are fewer samples.
    """
    starts = np.unique(
        np.linspace(0, samples.size, min(points, samples.size), endpoint=False, dtype=np.int64)
    )
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    return np.stack([low, high]).astype(np.float32)


def standardised(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows width"]:
    """Each dimension less its mean, in deviations: so that no few large ones hide the others."""
    spread = rows.std(axis=0, keepdims=True)
    return ((rows - rows.mean(axis=0, keepdims=True)) / np.maximum(spread, 1e-12)).astype(
        np.float32
    )


def pca_colours(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows 3"]:
    """The three principal components of the rows as red, green and blue, 0 to 1.

    Rows of like colour lie near each other. Each component is stretched from its 1st to its 99th
    percentile; one that carries next to nothing (less than a millionth of the first one's variance)
    stays at a half. Its sign is such that what lies farthest from the middle is bright.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    # The smaller of the two products has the same eigenvalues as the larger one.
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
    """The cosine of every row with every other, −1 to 1; of a row without length: 0.

    The mean of all rows is taken off first: hidden states share a large common part, beside which
    what differs between them would not be seen (Mu & Viswanath, "All-but-the-Top", 2018).
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # What rounding leaves of rows that are all the same has no direction.
    least = 1e-6 * max(float(np.abs(rows).max(initial=0)), 1e-30)
    units = np.where(lengths > least, centred / np.maximum(lengths, 1e-30), 0.0)
    return np.clip(units @ units.T, -1, 1).astype(np.float32)


def novelty(
    similarity: Float[np.ndarray, "columns columns"], kernel: int
) -> Float32[np.ndarray, "columns"]:
    """How much what comes after a column differs from what came before it.

    A checkerboard with a Gaussian taper slides along the diagonal of the self-similarity: it adds
    up what is alike on each side and takes off what is alike across (Foote, "Automatic audio
    segmentation using a measure of audio novelty", ICME 2000).

    Args:
        kernel: columns that the checkerboard spans: half before the column, half from it on.

    Returns:
        −1 to 1 (1: two blocks, each the same in itself and opposite to the other); NaN within half
        a kernel of either end, where the checkerboard does not fit.
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


def section_starts(curve: Float[np.ndarray, "columns"], apart: int) -> list[int]:
    """The columns at which a new section begins: the peaks of a novelty curve.

    A peak is the highest value within `apart` columns on either side, and above the curve's mean by
    its standard deviation at least. Where the curve begins or ends there is none: it may go on
    rising beyond.
    """
    known = np.isfinite(curve)
    if not known.any():
        return []
    least = float(curve[known].mean() + curve[known].std())
    heights = np.where(known, curve, -np.inf)
    ends = set(np.flatnonzero(known)[[0, -1]].tolist())
    found: list[int] = []
    for column in np.argsort(-heights, kind="stable"):
        height = heights[column]
        around = heights[max(0, column - apart) : column + apart + 1]
        far = all(abs(column - other) > apart for other in found)
        peak = height > max(least, 1e-6) and height >= around.max() and column not in ends
        if peak and far:
            found.append(int(column))
    return sorted(found)

"""Vectors reduced to two dimensions, by UMAP or PCA."""

from __future__ import annotations

import atexit
import tempfile
import warnings
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64

__all__ = ["UMAP_FITTED_ROWS", "pca_points", "umap_class", "umap_points"]

Vectors: TypeAlias = Float[np.ndarray, "rows width"]
Points: TypeAlias = Float32[np.ndarray, "rows 2"]

UMAP_FITTED_ROWS = 20_000
"""UMAP's time grows faster than the rows: 20 s for these, beside as much for compiling itself."""
_NEAREST = 5
"""Rows that UMAP was fitted on, at whose mean any other row is put."""
_COMPONENTS = 50
"""In which these are found: more say little about neighbours, and take longer."""
_BLOCK_ROWS = 4_096


def umap_points(vectors: Vectors, seed: int) -> Points:
    """UMAP by the cosine distance, with 15 neighbours: the same for the same seed.

    Beyond 20,000 rows it is fitted on as many, drawn at random; any other is put where UMAP's
    `transform` begins: at the mean of its nearest fitted rows, weighted by their similarity.
    """
    rows = len(vectors)
    if rows <= UMAP_FITTED_ROWS:
        return _fit_umap(vectors, seed)
    fitted = np.sort(np.random.default_rng(seed).choice(rows, UMAP_FITTED_ROWS, replace=False))
    points = np.empty((rows, 2), np.float32)
    points[fitted] = _fit_umap(vectors[fitted], seed)
    reduced = _principal_components(vectors, _COMPONENTS)
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)
    others = np.setdiff1d(np.arange(rows), fitted, assume_unique=True)
    for start in range(0, len(others), _BLOCK_ROWS):
        block = others[start : start + _BLOCK_ROWS]
        cosines = reduced[block] @ reduced[fitted].T
        nearest = np.argpartition(-cosines, _NEAREST, axis=1)[:, :_NEAREST]
        weights = np.exp(10 * np.take_along_axis(cosines, nearest, axis=1))  # the nearest decide
        weights /= weights.sum(axis=1, keepdims=True)
        points[block] = np.einsum("rk,rkd->rd", weights, points[fitted][nearest])
    return points


def _fit_umap(vectors: Vectors, seed: int) -> Points:
    # Numba says once that it compiles a function of UMAP's anew in every process.
    warnings.filterwarnings("ignore", "Cannot cache compiled function")
    reducer = umap_class()(
        n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=seed, n_jobs=1
    )
    return np.asarray(reducer.fit_transform(vectors.astype(np.float32)), np.float32)


@cache
def umap_class() -> Any:
    """umap.UMAP, also where numba finds no folder that it could store compiled functions in."""
    try:
        from umap import UMAP
    except RuntimeError:  # neither beside the library nor in a home directory
        from numba import config

        folder = tempfile.TemporaryDirectory(prefix="qwen-audio-")
        atexit.register(folder.cleanup)
        config.CACHE_DIR = folder.name  # type: ignore[attr-defined]
        from umap import UMAP
    return UMAP


def pca_points(vectors: Vectors, _seed: int) -> Points:
    """The first two principal components of all rows."""
    points = np.zeros((len(vectors), 2), np.float32)
    found = _principal_components(vectors, 2)
    points[:, : found.shape[1]] = found
    return points


def _principal_components(vectors: Vectors, count: int) -> Float32[np.ndarray, "rows components"]:
    """The first principal components; of few rows fewer. Vectors are read a block at a time."""
    blocks = [slice(k, k + _BLOCK_ROWS) for k in range(0, len(vectors), _BLOCK_ROWS)]
    mean = sum(vectors[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(vectors)
    if len(vectors) <= vectors.shape[1]:
        _, _, axes = np.linalg.svd(vectors.astype(np.float64) - mean, full_matrices=False)
    else:
        gram: Float64[np.ndarray, "width width"] = np.zeros((vectors.shape[1],) * 2)
        for block in blocks:
            centred = (vectors[block] - mean).astype(np.float32)
            gram += centred.T @ centred
        axes = np.linalg.eigh(gram)[1].T[::-1]
    axes = axes[:count]
    largest = np.abs(axes).argmax(axis=1, keepdims=True)
    axes = axes * np.sign(np.take_along_axis(axes, largest, axis=1))  # of two directions, one
    parts = [((vectors[block] - mean) @ axes.T).astype(np.float32) for block in blocks]
    return np.concatenate(parts)

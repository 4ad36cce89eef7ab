"""Vectors reduced to two dimensions, by UMAP or PCA."""

from __future__ import annotations

import atexit
import tempfile
import warnings
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

__all__ = ["pca_points", "umap_class", "umap_points"]

Vectors: TypeAlias = Float32[np.ndarray, "rows width"]
Points: TypeAlias = Float32[np.ndarray, "rows 2"]


def umap_points(vectors: Vectors, seed: int) -> Points:
    """UMAP by the cosine distance, with 15 neighbours: the same for the same seed."""
    # Numba says once that it compiles a function of UMAP's anew in every process.
    warnings.filterwarnings("ignore", "Cannot cache compiled function")
    reducer = umap_class()(
        n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=seed, n_jobs=1
    )
    return np.asarray(reducer.fit_transform(vectors), np.float32)


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
    """The first two principal components."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2), np.float32)
    components = min(2, len(sizes))
    points[:, :components] = left[:, :components] * sizes[:components]
    return points

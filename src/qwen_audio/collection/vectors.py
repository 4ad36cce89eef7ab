"""Vectors of length 1: queries are made so, stored ones are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from qwen_audio.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["is_unit", "stored_vectors", "unit_vector"]

_LENGTH_TOLERANCE = 1e-2
"""Of stored vectors: rounding to float16 costs less than 1e-3."""


def unit_vector(vector: Any, width: int) -> Float32[np.ndarray, "width"]:
    """A vector of any length and number type, divided by its length in float64.

    Args:
        vector: an array, a tensor or a list of `width` real numbers.

    Raises:
        OptionError: for anything else, a number that isn't finite, or zeros only.
    """
    if hasattr(vector, "detach"):  # a torch tensor; NumPy has no bfloat16
        vector = vector.detach().cpu()
        vector = vector.double() if vector.is_floating_point() else vector
    try:
        numbers = np.asarray(vector)
    except (TypeError, ValueError):  # lists of different lengths
        numbers = np.asarray(None)
    if numbers.dtype.kind not in "fiu" or numbers.shape != (width,):
        raise OptionError(
            f"a query vector is {width} numbers here, of shape ({width},), not "
            f"{numbers.dtype} of shape {numbers.shape}: give one as `encode` does with the "
            "collection's embedding spec"
        )
    with np.errstate(over="ignore"):  # of longer floats: refused as infinite
        numbers = numbers.astype(np.float64)
    largest = float(np.abs(numbers).max())
    if not np.isfinite(largest):
        raise OptionError("the query vector holds NaN or infinity: give finite numbers")
    if largest == 0:
        raise OptionError("the query vector is zero, which is similar to nothing: give another")
    numbers /= largest  # so that no square overflows, or becomes 0
    return np.asarray(numbers / np.linalg.norm(numbers), np.float32)


def stored_vectors(column: pa.ChunkedArray) -> Float[np.ndarray, "rows width"]:
    """A column of vectors as a matrix of their number type; NaN where a row has none."""
    lists = column.combine_chunks()
    numbers = lists.flatten().to_numpy(zero_copy_only=False)  # of those that are there
    vectors = np.full((len(lists), lists.type.list_size), np.nan, numbers.dtype)
    vectors[lists.is_valid().to_numpy(zero_copy_only=False)] = numbers.reshape(
        -1, lists.type.list_size
    )
    return vectors


def is_unit(vectors: Float[np.ndarray, "rows width"]) -> Bool[np.ndarray, "rows"]:
    """Which rows are finite and of length 1, but for the rounding of stored ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return np.asarray(np.abs(lengths - 1) < _LENGTH_TOLERANCE)

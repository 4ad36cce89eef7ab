"""Vectors with their index as an xarray DataArray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import check_extra

from .row_index import RowIndex

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["to_xarray"]


def to_xarray(
    index: RowIndex, tap: str, vectors: Float32[np.ndarray, "rows width"]
) -> xr.DataArray:
    """The vectors with dimensions row and feature, the columns of an index as coordinates of rows.

    Raises:
        MissingExtraError: without xarray.
    """
    check_extra("to_xarray", "xarray", "xarray")
    import xarray as xr

    coordinates = {name: ("row", column) for name, column in index.columns().items()}
    return xr.DataArray(vectors, coordinates, ("row", "feature"), name=tap)

"""Vectors with their index, and rows of other results, as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import check_extra

from .row_index import RowIndex

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rows_to_pandas", "to_pandas"]


def to_pandas(
    index: RowIndex, tap: str, vectors: Float32[np.ndarray, "rows width"]
) -> pd.DataFrame:
    """The columns of an index, the tap, and the vectors (one array a cell).

    Raises:
        MissingExtraError: without pandas.
    """
    check_extra("to_pandas", "pandas", "pandas")
    import pandas as pd

    return pd.DataFrame({**index.columns(), "tap": tap, "vector": list(vectors)})


def rows_to_pandas(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of named values as a table.

    Raises:
        MissingExtraError: without pandas.
    """
    check_extra("to_pandas", "pandas", "pandas")
    import pandas as pd

    return pd.DataFrame(rows)

"""Results that are a table and arrays: as a DataFrame, and as files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.inference.data_frame import rows_to_pandas

from .files import save_numbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Tabulated"]


class Tabulated(ABC):
    """A result with a table, arrays, and facts that are true of all of its rows."""

    @abstractmethod
    def table(self) -> list[dict[str, Any]]:
        """The rows."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is true of all rows, as JSON can hold it."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """By name, as an .npz file has them."""

    def to_pandas(self) -> pd.DataFrame:
        """`table` as a DataFrame, with `facts` in its attrs.

        Raises:
            MissingExtraError: without pandas.
        """
        frame = rows_to_pandas(self.table())
        frame.attrs = self.facts()
        return frame

    def save(self, path: str | Path) -> Path:
        """Write the arrays (.npz), or `table` (.csv, .json); facts are in .npz and .json.

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        return save_numbers(path, self.facts(), self.arrays(), self.table)

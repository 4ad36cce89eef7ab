"""Embeddings: a NumPy array of vectors that knows the recording and time of each row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qwen_audio.inference.data_frame import to_pandas
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.html_table import rows_table
from qwen_audio.inference.row_index import IndexedRows, RowIndex
from qwen_audio.models.tap import Tap

if TYPE_CHECKING:
    import pandas as pd
    import torch

__all__ = ["Embeddings"]


class Embeddings(IndexedRows, np.ndarray):
    """Vectors of one tap as a float32 array, with where each row is from.

    Shape (rows, width), or (width,) for one vector. It is a NumPy array in every way; what is
    computed from it, or reshaped, is a plain array. Rows that are taken out of it, a copy and a
    pickle keep their index.

    Attributes:
        index: the recording, window, time and span of each row (of one vector: of that one), which
            are also `source`, `window`, `start_seconds`, `end_seconds` and `span`.
        spec: what the vectors were computed with.
    """

    index: RowIndex
    spec: EmbeddingSpec

    def __new__(cls, vectors: Any, index: RowIndex, spec: EmbeddingSpec) -> Embeddings:
        """Raises ValueError if there are more or fewer rows than the index has."""
        array = np.asarray(vectors, np.float32).view(cls)
        if len(index) != (1 if array.ndim == 1 else len(array)):
            raise ValueError(f"an array of shape {array.shape} and an index of {len(index)} rows")
        array.index, array.spec = index, spec
        return array

    @classmethod
    def concatenate(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """The rows of all parts, one after another.

        Raises:
            ValueError: for no parts, or parts of different specs.
        """
        if len({part.spec.fingerprint for part in parts}) != 1:
            raise ValueError("give embeddings of one spec, and at least one of them")
        rows = np.concatenate([np.atleast_2d(np.asarray(part)) for part in parts])
        return cls(rows, RowIndex.concatenate([part.index for part in parts]), parts[0].spec)

    @property
    def tap(self) -> Tap:
        """That the vectors were made from the rows of."""
        return Tap.parse(self.spec.tap)

    @property
    def start_seconds(self) -> np.ndarray:
        """Shape (rows,): where each row begins in its recording; NaN for text."""
        return self.index.start_seconds

    def between(self, start_seconds: float, end_seconds: float) -> Embeddings:
        """The rows whose time overlaps start … end, in seconds."""
        return cast(Embeddings, self[self.index.between(start_seconds, end_seconds)])

    def to_torch(self) -> torch.Tensor:
        """A tensor that shares the array's memory."""
        import torch

        return torch.from_numpy(np.asarray(self))

    def to_pandas(self) -> pd.DataFrame:
        """One line a row: source, window, start_seconds, end_seconds, span, tap and vector.

        Raises:
            MissingExtraError: without pandas.
        """
        return to_pandas(self.index, self.spec.tap, np.atleast_2d(np.asarray(self)))

    def _repr_html_(self) -> str:
        spec = self.spec
        shape = " × ".join(map(str, self.shape))
        caption = f"Embeddings: {shape}, {spec.tap}, {spec.pooling} over {spec.span}, {spec.model}"
        return rows_table(self.index, np.atleast_2d(np.asarray(self)), caption)

    def __array_finalize__(self, parent: Any) -> None:
        """A view has no index of its own until it is given one."""

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        array = np.asarray(array)
        return array[()] if return_scalar else array

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _plain(super().__array_function__(function, types, args, kwargs))

    def __getitem__(self, rows: Any) -> Any:
        found = super().__getitem__(rows)
        if not isinstance(found, Embeddings):
            return found
        keeps_rows = self.ndim == 2 and found.ndim in (1, 2) and not isinstance(rows, tuple)
        # A mask of numbers gives as many of them as a row has where there is one row.
        if (
            keeps_rows
            and np.ndim(rows) < 2
            and found.shape[-1] == self.shape[-1]
            and hasattr(self, "index")
        ):
            return Embeddings(found, self.index[rows], self.spec)
        return _plain(found)

    def copy(self, order: Any = "C") -> Embeddings:
        """A copy, with the index."""
        return Embeddings(np.array(self, order=order), self.index, self.spec)

    def __deepcopy__(self, memo: Any) -> Embeddings:
        return self.copy()

    def __reduce__(self) -> Any:
        return Embeddings, (np.asarray(self), self.index, self.spec)

    @property
    def T(self) -> np.ndarray:  # type: ignore[override]  # noqa: N802 (NumPy's name)
        """The transpose, a plain array."""
        return np.asarray(self).T


def _plain(result: Any) -> Any:
    return np.asarray(result) if isinstance(result, Embeddings) else result


def _with_plain_result(name: str) -> Any:
    method = getattr(np.ndarray, name)

    @functools.wraps(method)
    def plain(self: Embeddings, *args: Any, **options: Any) -> Any:
        return _plain(method(self, *args, **options))

    return plain


for _name in (
    *("astype", "flatten", "ravel", "repeat", "reshape"),
    *("squeeze", "swapaxes", "take", "transpose"),
):
    setattr(Embeddings, _name, _with_plain_result(_name))

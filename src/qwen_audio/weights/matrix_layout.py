"""How a quantised matrix is stored: as which tensors of a file, and what they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .quantization import LinearFormat, QuantizedMatrix, unpack_nibbles

__all__ = ["MatrixLayout", "StoredTensor", "unpack_int32", "view_rows"]


class StoredTensor(NamedTuple):
    """What is expected of a tensor in a file.

    Attributes:
        shape: None where it depends on what it holds.
        dtypes: those it may have, in safetensors' names; empty: any floats.
    """

    shape: tuple[int, ...] | None
    dtypes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MatrixLayout(ABC):
    """How the weights of one linear layer are stored.

    Attributes:
        rows, columns: of the matrix: output and input features.
    """

    rows: int
    columns: int

    bits = 4
    """Of a value in the file."""

    @property
    @abstractmethod
    def form(self) -> LinearFormat | None:
        """How the matrix is held in memory; None: it is dequantised when it is read."""

    @property
    def kind(self) -> str:
        """How its values are called in specs, such as "int4-g128"."""
        form = self.form
        group = "" if form is None or form.group_size is None else f"-g{form.group_size}"
        return f"int{self.bits}{group}"

    @abstractmethod
    def parts(self) -> Mapping[str, StoredTensor]:
        """The tensors that it is stored as, by their names in the layer."""

    @abstractmethod
    def join(self, parts: Mapping[str, Tensor]) -> QuantizedMatrix | Tensor:
        """The matrix, of the tensors that `parts` names.

        Raises:
            ValueError: for content that isn't supported, or isn't valid.
        """


def view_rows(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes of each row as another dtype. Flat in between: of a single row torch may keep any
    stride, and refuse to view it."""
    return rows.contiguous().flatten().view(dtype).view(len(rows), -1)


def unpack_int32(packed: Tensor) -> Tensor:
    """int32 (rows, n) → the eight values of 4 bits in each, the lowest first: uint8 (rows, 8n)."""
    return unpack_nibbles(view_rows(packed, torch.uint8))

"""Activations in 8 bits, a scale a row, for products with weights in 8 bits."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ACTIVATION_ZERO_POINT", "quantize_activations"]

ACTIVATION_ZERO_POINT = 128
"""oneDNN's kernels multiply unsigned activations; signed ones take its slow reference code."""


class _LastActivations(threading.local):
    """The activations that this thread quantised last: queries, keys and values are three products
    of the same rows."""

    def __init__(self) -> None:
        self._rows: Callable[[], Tensor | None] = lambda: None
        self._version = -1
        self._quantized: tuple[Tensor, Tensor] | None = None

    def quantize(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `_quantized_rows`; not computed again for the tensor that came last."""
        same = self._rows() is rows and self._version == rows._version
        if not same or self._quantized is None:
            self._quantized = _quantized_rows(rows.flatten(0, -2))
            self._rows, self._version = weakref.ref(rows), rows._version
        return self._quantized


_last_activations = _LastActivations()


def quantize_activations(rows: Tensor) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Activations of shape (…, columns) in 8 bits, (rows, columns), and the scale of each row.

    The same tensor, unchanged, is not quantised twice in a row.
    """
    return _last_activations.quantize(rows)


def _quantized_rows(rows: Float[Tensor, "rows columns"]) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Rows in 8 bits about `ACTIVATION_ZERO_POINT`, and the scale of each.

    A scale a row, not one for all: a row's result doesn't depend on the others in a batch.
    """
    scales = rows.abs().amax(-1, keepdim=True).float().div_(127)
    scales.clamp_min_(torch.finfo(torch.float32).tiny)
    values = rows.to(torch.float32, copy=True).div_(scales).add_(ACTIVATION_ZERO_POINT + 0.5)
    return values.to(torch.uint8), scales

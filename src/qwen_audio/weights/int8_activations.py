"""Activations in 8 or 16 bits, a scale a row, for products with weights in 8 bits.

16 bits are two numbers of 8, coarse + fine / `FINE_STEPS`: two rows of the same product. For a step
of text generation, whose time is that of reading the weights, they take little longer than one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ACTIVATION_ZERO_POINT", "FINE_STEPS", "quantize_activations"]

ACTIVATION_ZERO_POINT = 128
"""oneDNN's kernels multiply unsigned activations; signed ones take its slow reference code."""

FINE_STEPS = 254
"""In a step of the coarse numbers: half of it, to which they are rounded, is 127 fine steps."""

_ROUNDING = 1.5 * 2**23 + ACTIVATION_ZERO_POINT
"""The last place of this number in float32 is 1: a sum with it is rounded to an integer, and the
last byte of its bits is that integer about the zero point. Conversions to uint8 are slower."""

_CHUNK_VALUES = 1 << 20
"""That are in float32 at a time, in a processor's cache: 4 MB."""


class _LastActivations(threading.local):
    """The activations that this thread quantised last: queries, keys and values are three products
    of the same rows."""

    def __init__(self) -> None:
        self._rows: Callable[[], Tensor | None] = lambda: None
        self._key = (-1, 0)
        self._quantized: tuple[Tensor, Tensor] | None = None

    def quantize(self, rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """See `_quantized_rows`; not computed again for the tensor that came last."""
        if rows.is_inference():  # it doesn't count its versions
            return _quantized_rows(rows.flatten(0, -2), bits)
        key = (rows._version, bits)
        if self._rows() is not rows or self._key != key or self._quantized is None:
            self._quantized = _quantized_rows(rows.flatten(0, -2), bits)
            self._rows, self._key = weakref.ref(rows), key
        return self._quantized


_last_activations = _LastActivations()


def quantize_activations(rows: Tensor, bits: int) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Activations of shape (…, columns) in 8 or 16 bits, and the scale of each row.

    The same tensor, unchanged, is not quantised twice in a row.

    Returns:
        Values about `ACTIVATION_ZERO_POINT`, uint8 of shape (bits / 8, rows, columns), the coarse
        ones first, and scales of the coarse ones.
    """
    return _last_activations.quantize(rows, bits)


def _quantized_rows(
    rows: Float[Tensor, "rows columns"], bits: int
) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """See `quantize_activations`.

    A scale a row, not one for all: a row's result doesn't depend on the others in a batch.
    """
    # In bfloat16, whose range is float32's, products are scaled five times as fast by bfloat16.
    scales = rows.new_empty(
        len(rows), 1, dtype=rows.dtype if rows.dtype is torch.bfloat16 else torch.float32
    )
    values = torch.empty(bits // 8, *rows.shape, dtype=torch.uint8)
    step = max(1, _CHUNK_VALUES // rows.shape[1])
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        largest = _largest_magnitudes(rows[part]).float()
        scales[part] = largest.div_(127).clamp_min_(torch.finfo(torch.float32).tiny)
        scaled = rows[part].to(torch.float32, copy=True)
        scaled.mul_(scales[part].float().reciprocal())
        if bits == 16:
            coarse = scaled.add(_ROUNDING)
            values[0, part] = coarse.view(torch.int32)
            scaled.sub_(coarse.sub_(_ROUNDING)).mul_(FINE_STEPS)
        values[-1, part] = scaled.add_(_ROUNDING).view(torch.int32)
    return values, scales


def _largest_magnitudes(rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows 1"]:
    """Of each row. The bits of bfloat16 without their sign are in the order of the numbers, and
    integers are compared three times as fast."""
    if rows.dtype is not torch.bfloat16:
        return rows.abs().amax(-1, keepdim=True)
    magnitudes = rows.view(torch.int16).bitwise_and(0x7FFF)
    return magnitudes.amax(-1, keepdim=True).view(torch.bfloat16)

"""Arguments of edits: checked, and identified."""

from __future__ import annotations

import hashlib
import itertools
import weakref
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.errors import OptionError, number_option

__all__ = ["digest", "finite_number", "process_identity", "row_matrix", "width_vector"]


def finite_number(name: str, value: float) -> float:
    """Raises OptionError for anything else."""
    number = number_option(name, value, "a finite number")
    if not np.isfinite(number):
        raise OptionError(f"{name}={number}: use a finite number")
    return number


def row_matrix(rows: Any) -> Float[Tensor, "rows width"]:
    """A copy. Raises OptionError for anything else."""
    return _tensor_of("edits.replace", rows, 2, "rows, of shape (rows, width)")


def width_vector(vector: Any) -> Float[Tensor, "width"]:
    """A copy, of a `Direction`'s, too. Raises OptionError for anything else."""
    return _tensor_of(
        "edits.add", getattr(vector, "vector", vector), 1, "a vector, of shape (width,)"
    )


def _tensor_of(where: str, values: Any, dimensions: int, allowed: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{where} with an object of type {type(values).__name__}: give {allowed}"
        ) from error
    if tensor.ndim != dimensions or not tensor.numel():
        raise OptionError(f"{where} with numbers of shape {tuple(tensor.shape)}: give {allowed}")
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    if not torch.isfinite(tensor).all():
        raise OptionError(f"{where} with NaN or infinity: give finite numbers")
    return tensor


def digest(values: Tensor) -> str:
    """Equal for equal numbers: 12 hexadecimal digits of SHA-256."""
    numbers = values.detach().float().cpu().contiguous().numpy()
    return hashlib.sha256(repr(numbers.shape).encode() + numbers.tobytes()).hexdigest()[:12]


_PROCESS = f"{np.random.SeedSequence().entropy:x}"[:8]
_numbers_of: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_next_number = itertools.count(1)


def process_identity(key: Any) -> str:
    """Equal for the same function in this process alone."""
    try:
        number = _numbers_of.setdefault(key, next(_next_number))
    except TypeError:  # what can't be referred to weakly
        number = next(_next_number)
    return f"{_PROCESS}-{number}"

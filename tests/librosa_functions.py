"""librosa's `load` and `resample`, the references for decoding.

Importing them compiles functions for beat tracking and the like, which takes each process fifteen
seconds in a new environment: here those stay uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numba


def _uncompiled(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """A decorator that returns the function."""
    return lambda function: function


with mock.patch.multiple(numba, guvectorize=_uncompiled, vectorize=_uncompiled):
    import librosa.util.utils  # noqa: F401 (the others import it lazily)
    from librosa.core.audio import load, resample

__all__ = ["load", "resample"]

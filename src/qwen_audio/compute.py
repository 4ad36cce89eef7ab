"""Where and in which numbers to compute."""

from __future__ import annotations

import torch

from .errors import OptionError

__all__ = ["resolve_device", "resolve_dtype"]


def resolve_device(device: str | torch.device | None) -> torch.device:
    """A GPU if there is one, else the CPU, unless named. Raises OptionError if it isn't there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device={device!r} can't be used ({reason}): try 'cpu'") from error
    return found


def resolve_dtype(dtype: str | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    """Raises OptionError for what is no floating point type of the models."""
    if dtype is None:
        return default
    allowed = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = allowed.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise OptionError(f"dtype={dtype!r}: use one of {', '.join(allowed)}")
    return found

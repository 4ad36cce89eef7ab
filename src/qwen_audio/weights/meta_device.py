"""Modules on the meta device: shapes without memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["empty_module"]


def empty_module(build: Callable[[], nn.Module]) -> nn.Module:
    """A module on the meta device: shapes without memory. Initialising it takes no time."""
    with _MetaDevice():
        return build()


class _MetaDevice(TorchFunctionMode):
    """New tensors are on the meta device, in this thread only.

    `torch.device("meta")` as a context, and transformers' `no_init_weights`, change variables of
    the whole process: threads that overlap would save each other's values as the original ones.
    """

    _FACTORIES = frozenset({torch.arange, torch.empty, torch.ones, torch.tensor, torch.zeros})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        return func(*args, **kwargs)

"""A command's start, without torch's compiler and distributed parts.

Importing transformers' model code brings in torch._dynamo (and with it sympy and Triton) for a few
decorators, and torch.distributed.tensor for sharded loading: most of the time of a short command. A
command is one process that computes on one device and compiles nothing. So while these imports
run, it gives transformers placeholders. Only the command line does this; a program that imports
qwen_audio gets transformers whole.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["fast_start"]

_LEFT_OUT = "torch._dynamo"


@contextmanager
def fast_start() -> Iterator[None]:
    """Import heavy modules within this context. What was left out can still be imported after."""
    if _LEFT_OUT in sys.modules:  # somebody has paid for it already
        yield
        return
    import torch.distributed
    from transformers.utils import import_utils

    finder = _PlaceholderFinder()
    available = torch.distributed.is_available
    sys.meta_path.insert(0, finder)
    torch.distributed.is_available = lambda: False
    import_utils.is_torch_distributed_available.cache_clear()
    try:
        yield
    finally:
        torch.distributed.is_available = available
        import_utils.is_torch_distributed_available.cache_clear()
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_left_out(name)]:
            del sys.modules[name]
        if isinstance(getattr(torch, "_dynamo", None), _Placeholder):
            del torch._dynamo


class _PlaceholderFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: types.ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if not _is_left_out(fullname):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Placeholder(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class _Placeholder(types.ModuleType):
    """A module whose functions hand back what they decorate, and whose classes are empty."""

    __path__: list[str] = []  # noqa: RUF012 (a module's, not shared state)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            return type(name, (), {})
        return _decorate


def _decorate(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if callable(function) else _decorate


def _is_left_out(name: str) -> bool:
    return name == _LEFT_OUT or name.startswith(f"{_LEFT_OUT}.")

"""Start of a command without the parts of torch and transformers that it doesn't use.

Importing transformers' model code imports torch._dynamo (and with it sympy and Triton) for a few
decorators, torch.distributed.tensor for sharded loading, and scipy for the losses of object
detectors: most of the time of a short command. A command is one process that computes on one device
and neither compiles nor trains. So while these imports run, torch._dynamo is a placeholder, and
torch.distributed and scipy seem not to be installed. Only the command line does this; a program
that imports qwen_audio gets the whole of transformers.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["fast_start"]

_LEFT_OUT = "torch._dynamo"


@contextmanager
def fast_start() -> Iterator[None]:
    """Import heavy modules within this context. What was left out can still be imported after.

    Threads of an OpenMP team wait for work without spinning, unless OMP_WAIT_POLICY says otherwise:
    where other processes keep the cores busy, a spinning team takes many times as long (describing
    5 s of audio on two busy cores: 3.9 s instead of 0.2 s).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    if _LEFT_OUT in sys.modules:  # imported whole already: nothing to save
        yield
        return
    import torch.distributed
    from transformers import utils
    from transformers.utils import import_utils

    finder = _PlaceholderFinder()
    sys.meta_path.insert(0, finder)
    replaced = [(torch.distributed, "is_available"), (utils, "is_scipy_available")]
    originals = [getattr(module, name) for module, name in replaced]
    for module, name in replaced:
        setattr(module, name, lambda: False)
    import_utils.is_torch_distributed_available.cache_clear()
    try:
        yield
    finally:
        for (module, name), original in zip(replaced, originals, strict=True):
            setattr(module, name, original)
        import_utils.is_torch_distributed_available.cache_clear()
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_left_out(name)]:
            del sys.modules[name]
        if isinstance(vars(torch).get("_dynamo"), _Placeholder):  # getattr would import it
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
        """A placeholder has no code to run."""


class _Placeholder(types.ModuleType):
    """A module whose functions are identity decorators, and whose classes are empty."""

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

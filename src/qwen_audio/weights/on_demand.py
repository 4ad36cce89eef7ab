"""Modules of which a pass uses only some, such as the experts of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

__all__ = ["OnDemandModules", "ReadModules"]

ReadModules = Callable[[Sequence[int]], Iterator[nn.Module]]
"""From the numbers of modules to these, in order; each is valid until the next is requested."""


class OnDemandModules(nn.ModuleList):
    """Modules of which a pass uses only some. It is made empty: those of a layer that stays in
    memory are built with it, and of a streamed one those that are used are read when they are.

    Args:
        count: of the modules.
        build: makes one.
    """

    def __init__(self, count: int, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.count, self.build = count, build
        self._read: ReadModules | None = None

    def build_all(self) -> OnDemandModules:
        """Build all modules; returns itself."""
        return self.extend(self.build() for _ in range(self.count))

    def read_with(self, read: ReadModules) -> None:
        """Have `used` read modules."""
        self._read = read

    def used(self, numbers: Sequence[int]) -> Iterator[nn.Module]:
        """The modules of these numbers, in order; each is valid until the next is requested."""
        return map(self.__getitem__, numbers) if self._read is None else self._read(numbers)

"""How much a command says beside its results: --quiet and --verbose."""

from __future__ import annotations

from contextvars import ContextVar
from enum import IntEnum

__all__ = ["VERBOSITY", "Verbosity"]


class Verbosity(IntEnum):
    """Quiet: warnings and errors; normal: progress and notices, too; verbose: also each file."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


VERBOSITY: ContextVar[Verbosity] = ContextVar("verbosity", default=Verbosity.NORMAL)
"""Of the command that runs."""

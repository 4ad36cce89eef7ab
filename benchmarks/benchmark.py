"""What a run of the suite is asked for, and what a benchmark answers."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Benchmark", "Missing", "Result", "Settings", "Target", "say"]


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        work: where checkpoints and converted models are kept from one run to the next.
        threads: for everyone alike.
        quick: small models and one process: a dry run, whose numbers mean nothing.
        turns: how often each is timed, after a warm-up that isn't counted.
        files: how many the folder holds.
    """

    work: Path
    threads: int
    quick: bool = False
    turns: int = 3
    files: int = 64


@dataclass(frozen=True)
class Target:
    """A ratio, and which side of it is good."""

    bound: float
    at_most: bool = False
    unit: str = "×"

    def met(self, ratio: float) -> bool:
        return (operator.le if self.at_most else operator.ge)(ratio, self.bound)

    def __str__(self) -> str:
        return f"at {'most' if self.at_most else 'least'} {self.bound:g}{self.unit}"


@dataclass(frozen=True)
class Result:
    """What came out. `ratio` is the number that `target` bounds."""

    what: str
    dtype: str
    figures: Mapping[str, Any]
    ratio: float
    target: Target
    conditions: Mapping[str, bool] = field(default_factory=dict)
    """What must be true besides."""
    packages: tuple[str, ...] = ()
    """Peers whose versions belong to the result."""


Benchmark = Callable[[Settings], Result]


class Missing(Exception):  # noqa: N818 (it is no error to lack a peer)
    """A benchmark can't be run here, and why."""


def say(text: str) -> None:
    """Progress, apart from the results on standard output."""
    print(text, file=sys.stderr, flush=True)

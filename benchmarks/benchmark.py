"""Settings of a run of the suite, and the result of a benchmark."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Benchmark", "Result", "Settings", "SkipBenchmark", "Target", "log_progress"]


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        work: folder of checkpoints, converted models and audio that later runs use again.
        threads: number of threads of every workload.
        quick: dry run with small models in one process; its numbers mean nothing.
        rounds: how often each workload is timed, after an untimed warm-up.
        files: number of files in benchmark `folder`.
        llama_cpp: virtual environment of llama-cpp-python and gguf, built for this processor.
        llama_cpp_avx2: one built without AVX-512.
    """

    work: Path
    threads: int
    quick: bool = False
    rounds: int = 3
    files: int = 64
    llama_cpp: Path | None = None
    llama_cpp_avx2: Path | None = None


@dataclass(frozen=True)
class Target:
    """Bound of a benchmark's number, and whether it is an upper or a lower one."""

    bound: float
    at_most: bool = False
    unit: str = "×"

    def met(self, ratio: float) -> bool:
        return (operator.le if self.at_most else operator.ge)(ratio, self.bound)

    def __str__(self) -> str:
        return f"at {'most' if self.at_most else 'least'} {self.bound:g}{self.unit}"


@dataclass(frozen=True)
class Result:
    """Result of a benchmark.

    Attributes:
        what: what was measured, in words.
        dtype: of the computation.
        figures: all numbers measured.
        ratio: the number that `target` bounds.
        conditions: further conditions for meeting the target.
        rows: figures of each of several things, for a table of their own.
        packages: peers, whose versions are recorded.
        device: that computed, as torch names it.
    """

    what: str
    dtype: str
    figures: Mapping[str, Any]
    ratio: float
    target: Target
    conditions: Mapping[str, bool] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    device: str = "cpu"


Benchmark = Callable[[Settings], Result]


class SkipBenchmark(Exception):  # noqa: N818 (a missing peer is no error)
    """The reason why a benchmark can't be run on this machine."""


def log_progress(text: str) -> None:
    """Print to standard error: standard output has the results."""
    print(text, file=sys.stderr, flush=True)

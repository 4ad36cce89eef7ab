"""Turn by turn: contenders run one after another in rounds, A B A B …, in one run.

What changes in the machine meanwhile (its clock, its neighbours, its temperature) then falls on all
of them alike, and each round has a ratio of its own. Reported is the median.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .benchmark import Settings, say
from .worker import prepared, timed

__all__ = ["Job", "Rounds", "fresh", "in_turns", "median", "once"]

ROOT = Path(__file__).parent.parent
Job = tuple[str, dict[str, Any]]
"""`module:function` of this package, which prepares a turn, and its options."""


class Rounds:
    """Seconds and facts of every contender in every round."""

    def __init__(self, names: Iterable[str]) -> None:
        self._of: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def add(self, name: str, answer: dict[str, Any]) -> None:
        self._of[name].append(answer)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._of)

    def total(self, name: str) -> float:
        """Seconds of all rounds together."""
        return sum(self.every(name))

    def facts(self, name: str) -> list[dict[str, Any]]:
        return self._of[name]

    def every(self, name: str, key: str = "seconds") -> list[float]:
        return [float(answer[key]) for answer in self._of[name]]

    def seconds(self, name: str, key: str = "seconds") -> float:
        """The median over the rounds."""
        return statistics.median(self.every(name, key))

    def ratio(self, slower: str, faster: str) -> float:
        """How many times as long the one took as the other: the median of the rounds' ratios."""
        pairs = zip(self.every(slower), self.every(faster), strict=True)
        return statistics.median(a / b for a, b in pairs)

    def total_ratio(self, slower: str, faster: str) -> float:
        """The same over all rounds together, where each round is other work."""
        return self.total(slower) / self.total(faster)


class _Process:
    """A contender in a process of its own."""

    def __init__(self, job: Job, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", job[0], json.dumps(job[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(threads),
        )
        self._read()

    def run(self, options: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(options)) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended with status {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Here:
    """A contender in this process: a dry run has no time for more."""

    def __init__(self, job: Job) -> None:
        self._turn = prepared(*job)

    def run(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return timed(self._turn, dict(options))

    def close(self) -> None:
        pass


def in_turns(
    settings: Settings,
    jobs: Mapping[str, Job],
    rounds: Iterable[Mapping[str, Any]] | None = None,
) -> Rounds:
    """Run all contenders in every round.

    Args:
        rounds: the options of each round's turns, where the rounds differ; by default as many
            rounds as the settings ask for, all alike.
    """
    rounds = [{}] * settings.turns if rounds is None else list(rounds)
    result = Rounds(jobs)
    with ExitStack() as stack:
        contenders: dict[str, _Process | _Here] = {}
        for name, job in jobs.items():
            say(f"  preparing {name}")
            contender = _Here(job) if settings.quick else _Process(job, settings.threads)
            stack.callback(contender.close)
            contenders[name] = contender
        for number, options in enumerate(rounds, start=1):
            for name, contender in contenders.items():
                answer = contender.run(options)
                result.add(name, answer)
                say(f"  {number}/{len(rounds)} {name} {answer['seconds']:.2f} s")
    return result


def fresh(settings: Settings, job: Job, **options: Any) -> dict[str, Any]:
    """One turn in a process that has done nothing else, even in a dry run: for bytes."""
    return _once(_Process(job, settings.threads), options)


def once(settings: Settings, job: Job, **options: Any) -> dict[str, Any]:
    """One turn in a process of its own, but in this one in a dry run."""
    return _once(_Here(job) if settings.quick else _Process(job, settings.threads), options)


def _once(contender: _Process | _Here, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return contender.run(options)
    finally:
        contender.close()


def environment(threads: int) -> dict[str, str]:
    """The same number of threads for every library that asks its environment."""
    count = str(threads)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def median(values: Iterable[float]) -> float:
    return statistics.median(values)

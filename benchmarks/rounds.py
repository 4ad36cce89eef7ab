"""Interleaved rounds: the workloads of a benchmark run one after another, A B A B …

Changes of the machine during the run (clock, other load, temperature) then affect all of them, and
each round has a ratio of its own. Reported is the median of these ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .benchmark import Settings, log_progress
from .worker import prepare_workload, run_timed

__all__ = [
    "ROOT",
    "Environment",
    "Job",
    "Rounds",
    "median",
    "run_in_new_process",
    "run_interleaved",
    "run_once",
    "worker_environment",
]

ROOT = Path(__file__).parent.parent
Job = tuple[str, dict[str, Any]]
"""`module:function` of this package, which prepares a workload, and its options."""


@dataclass(frozen=True)
class Environment:
    """Where a workload runs: Python's interpreter, and further environment variables."""

    python: Path = Path(sys.executable)
    variables: Mapping[str, str] = field(default_factory=dict)


class Rounds:
    """Seconds and outputs of every workload in every round."""

    def __init__(self, names: Iterable[str]) -> None:
        self._outputs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def add(self, name: str, output: dict[str, Any]) -> None:
        self._outputs[name].append(output)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def outputs(self, name: str) -> list[dict[str, Any]]:
        """What a workload reported, one dict a round."""
        return self._outputs[name]

    def values(self, name: str, key: str = "seconds") -> list[float]:
        """One reported number in every round."""
        return [float(output[key]) for output in self._outputs[name]]

    def median_seconds(self, name: str, key: str = "seconds") -> float:
        return statistics.median(self.values(name, key))

    def total_seconds(self, name: str) -> float:
        """Seconds of all rounds together."""
        return sum(self.values(name))

    def median_ratio(self, numerator: str, denominator: str, key: str = "seconds") -> float:
        """Time of one workload divided by that of another: the median over the rounds."""
        pairs = zip(self.values(numerator, key), self.values(denominator, key), strict=True)
        return statistics.median(a / b for a, b in pairs)

    def total_ratio(self, numerator: str, denominator: str) -> float:
        """The same over all rounds together, for rounds with different inputs."""
        return self.total_seconds(numerator) / self.total_seconds(denominator)


class _WorkerProcess:
    """A workload in a process of its own."""

    def __init__(self, job: Job, threads: int, environment: Environment | None = None) -> None:
        environment = environment or Environment()
        self._process = subprocess.Popen(
            [str(environment.python), "-m", "benchmarks.worker", job[0], json.dumps(job[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=worker_environment(threads) | dict(environment.variables),
        )
        self._read_reply()

    def run(self, options: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(options)) + "\n")
        self._process.stdin.flush()
        return self._read_reply()

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker exited with status {self._process.wait()}; see above")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _InProcess:
    """A workload in this process: starting others would take a dry run too long."""

    def __init__(self, job: Job) -> None:
        self._workload = prepare_workload(*job)

    def run(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return run_timed(self._workload, dict(options))

    def close(self) -> None:
        pass


def run_interleaved(
    settings: Settings,
    jobs: Mapping[str, Job],
    rounds: Iterable[Mapping[str, Any]] | None = None,
    environments: Mapping[str, Environment] | None = None,
) -> Rounds:
    """Run all workloads in every round, in the order of `jobs`.

    Args:
        rounds: options of the runs of each round, where rounds differ; by default
            `settings.rounds` equal rounds.
        environments: of workloads that don't run in this one.
    """
    rounds = [{}] * settings.rounds if rounds is None else list(rounds)
    result = Rounds(jobs)
    with ExitStack() as stack:
        workers: dict[str, _WorkerProcess | _InProcess] = {}
        for name, job in jobs.items():
            log_progress(f"  preparing {name}")
            worker = _start(settings, job, (environments or {}).get(name))
            stack.callback(worker.close)
            workers[name] = worker
        for number, options in enumerate(rounds, start=1):
            for name, worker in workers.items():
                output = worker.run(options)
                result.add(name, output)
                log_progress(f"  {number}/{len(rounds)} {name} {output['seconds']:.2f} s")
    return result


def run_in_new_process(settings: Settings, job: Job, **options: Any) -> dict[str, Any]:
    """One run in a new process, even in a dry run: for bytes and peak memory."""
    return _run_and_close(_WorkerProcess(job, settings.threads), options)


def run_once(
    settings: Settings, job: Job, environment: Environment | None = None, **options: Any
) -> dict[str, Any]:
    """One run in a new process; in a dry run, in this process unless it has an environment."""
    return _run_and_close(_start(settings, job, environment), options)


def _start(
    settings: Settings, job: Job, environment: Environment | None
) -> _WorkerProcess | _InProcess:
    if settings.quick and environment is None:
        return _InProcess(job)
    return _WorkerProcess(job, settings.threads, environment)


def _run_and_close(
    worker: _WorkerProcess | _InProcess, options: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        return worker.run(options)
    finally:
        worker.close()


def worker_environment(threads: int) -> dict[str, str]:
    """This process's environment, with the number of threads for every library that reads one."""
    count = str(threads)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def median(values: Iterable[float]) -> float:
    return statistics.median(values)

"""Worker process of one workload: prepare once, then run on request and report the time.

Every workload runs in a process of its own, so that its libraries, threads and memory affect no
other. While one runs, the others block on standard input. Prints one JSON object per line: first
that it is ready, then seconds and outputs of each run.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Workload", "prepare_workload", "run_timed"]

Workload = Callable[..., dict[str, Any] | None]
"""The function that is timed. Takes the options of one run; may return values to report."""


def prepare_workload(job: str, options: dict[str, Any]) -> Workload:
    """Call `module:function` of this package, which loads what it needs and returns a workload."""
    module, _, function = job.partition(":")
    prepare = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    workload: Workload = prepare(**options)
    return workload


def run_timed(workload: Workload, options: dict[str, Any]) -> dict[str, Any]:
    """Run once. Returns `seconds` and what the workload returned, which may replace it."""
    start = time.perf_counter()
    output = workload(**options)
    return {"seconds": time.perf_counter() - start} | (output or {})


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to standard error, not among the replies

    def reply(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=replies, flush=True)

    workload = prepare_workload(sys.argv[1], json.loads(sys.argv[2]))
    reply({"ready": True})
    for line in sys.stdin:
        reply(run_timed(workload, json.loads(line)))


if __name__ == "__main__":
    main()

"""One contender in a process of its own: prepares, then waits to be told to run.

Each has its own libraries, threads and memory, so nobody's work is measured in anybody else's
state; while one runs, the others wait for a line on standard input and take no time. Prints one
JSON object a line: first what preparing brought to light, then the seconds of each turn.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Turn", "prepared", "timed"]

Turn = Callable[..., dict[str, Any] | None]
"""What is timed; called with a turn's own options, and may tell facts."""


def prepared(job: str, options: dict[str, Any]) -> Turn:
    """Call `module:function` of this package: it prepares and returns the turn."""
    module, _, function = job.partition(":")
    prepare = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    turn: Turn = prepare(**options)
    return turn


def timed(turn: Turn, options: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    facts = turn(**options)
    return {"seconds": time.perf_counter() - start} | (facts or {})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer

    def answer(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=answers, flush=True)

    turn = prepared(sys.argv[1], json.loads(sys.argv[2]))
    answer({"ready": True})
    for line in sys.stdin:
        answer(timed(turn, json.loads(line)))


if __name__ == "__main__":
    main()

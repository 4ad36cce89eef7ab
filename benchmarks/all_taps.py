"""All taps of a clip in one pass, against the deepest tap alone."""

from __future__ import annotations

import time
from typing import Any

from .benchmark import Result, Settings, Target
from .rounds import median, run_interleaved
from .synthetic_audio import SAMPLING_RATE, synthetic_clips
from .this_package import load_model
from .worker import Workload

__all__ = ["all_taps"]

DTYPE = "float32"


def all_taps(settings: Settings) -> Result:
    count = 4 if settings.quick else 96
    options = {"count": count, "dtype": DTYPE, "threads": settings.threads}
    rounds = run_interleaved(settings, {"both": ("all_taps:deepest_then_all", options)})
    pairs = zip(rounds.values("both", "all"), rounds.values("both", "deepest"), strict=True)
    return Result(
        what=f"the mean of every tap of the embedded checkpoint for {count} clips of 5 s, in one "
        "pass, against the deepest tap alone",
        dtype=DTYPE,
        figures={
            "all_seconds": rounds.median_seconds("both", "all"),
            "deepest_seconds": rounds.median_seconds("both", "deepest"),
        },
        ratio=median(all_seconds / deepest for all_seconds, deepest in pairs),
        target=Target(1.15, at_most=True),
    )


def deepest_then_all(count: int, dtype: str, threads: int) -> Workload:
    """Seconds of the deepest tap, then of all taps, of the same clips."""
    model: Any = load_model("embedded", dtype, threads)
    clips = synthetic_clips(5.0, count)
    taps = [str(tap) for tap in model.taps]

    def run() -> dict[str, Any]:
        seconds = {}
        for name, selected in (("deepest", taps[-1:]), ("all", taps)):
            start = time.perf_counter()
            model.encode(clips, tap=selected, sampling_rate=SAMPLING_RATE)
            seconds[name] = time.perf_counter() - start
        return seconds

    run()
    return run

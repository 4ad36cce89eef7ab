"""All taps of a clip in one pass, against the deepest alone."""

from __future__ import annotations

import time
from typing import Any

from .benchmark import Result, Settings, Target
from .rounds import in_turns
from .synthetic_audio import RATE, sounds
from .this_package import opened
from .worker import Turn

__all__ = ["all_taps"]

DTYPE = "float32"


def all_taps(settings: Settings) -> Result:
    count = 4 if settings.quick else 96
    options = {"count": count, "dtype": DTYPE, "threads": settings.threads}
    rounds = in_turns(settings, {"both": ("all_taps:both", options)})
    pairs = zip(rounds.every("both", "all"), rounds.every("both", "deepest"), strict=True)
    ratios = sorted(a / b for a, b in pairs)
    return Result(
        what=f"the mean of every tap of the embedded checkpoint for {count} clips of 5 s, in one "
        "pass, against the deepest tap alone",
        dtype=DTYPE,
        figures={
            "all_seconds": rounds.seconds("both", "all"),
            "deepest_seconds": rounds.seconds("both", "deepest"),
        },
        ratio=ratios[len(ratios) // 2],
        target=Target(1.15, at_most=True),
    )


def both(count: int, dtype: str, threads: int) -> Turn:
    model: Any = opened("embedded", dtype, threads)
    clips = sounds(5.0, count)
    taps = [str(tap) for tap in model.taps]

    def turn() -> dict[str, Any]:
        took = {}
        for name, tap in (("deepest", taps[-1:]), ("all", taps)):
            begun = time.perf_counter()
            model.encode(clips, tap=tap, sampling_rate=RATE)
            took[name] = time.perf_counter() - begun
        return took

    turn()
    return turn

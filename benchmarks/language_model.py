"""Language model taps: layers streamed within a memory limit, and only as many as needed."""

from __future__ import annotations

from typing import Any

from .benchmark import Result, Settings, Target
from .checkpoints import SEVEN_B, SMALL, random_checkpoint
from .encoder import DTYPE
from .machine import available_bytes
from .rounds import median, run_interleaved

__all__ = ["lm_depth", "streamed_lm"]

CLIPS, SECONDS, GB = 8, 5.0, 1e9
UNLIMITED = "64GB"
"""More than the 7B needs: no layer is streamed."""


def streamed_lm(settings: Settings) -> Result:
    """The resident time is extrapolated from a quarter of the layers: all would need 16 GB."""
    options, depth, measured_depth = _options(settings)
    limit = "3GB" if not settings.quick else "1.5GB"
    resident_taps = ["lm.0", f"lm.{measured_depth}"]
    rounds = run_interleaved(
        settings,
        {
            "streamed": (
                "resources:streamed",
                {**options, "tap": f"lm.{depth}", "max_memory": limit},
            ),
            "resident": (
                "this_package:encode_taps",
                {**options, "taps": resident_taps, "max_memory": UNLIMITED},
            ),
        },
        [{"cold": True}, {"cold": False}, {"cold": True}],
    )
    resident = []
    for output in rounds.outputs("resident"):
        start, end = (output["seconds_of"][tap] for tap in resident_taps)
        resident.append(start + (end - start) * depth / measured_depth)
    streamed = rounds.values("streamed", "encode_seconds")
    peak = max(rounds.values("streamed", "peak")) / GB
    cold_ratios = [streamed[number] / resident[number] for number in (0, 2)]
    return Result(
        what=f"lm.{depth} of {CLIPS} clips of {SECONDS:g} s with max_memory={limit}, weights "
        f"read from uncached files, against all layers resident (extrapolated from lm.0 and "
        f"lm.{measured_depth}); peak memory of the process",
        dtype=DTYPE,
        figures={
            "peak_gb": peak,
            "streamed_cold_seconds": median(streamed[0::2]),
            "streamed_warm_seconds": streamed[1],
            "resident_seconds": median(resident),
            "warm_ratio": streamed[1] / resident[1],
        },
        ratio=median(cold_ratios),
        target=Target(1.25, at_most=True),
        conditions={"peak under 3 GB": peak < 3},
    )


def lm_depth(settings: Settings) -> Result:
    options, depth, quarter = _options(settings)
    needed_bytes = 17.5 * GB if not settings.quick else 0
    fits = available_bytes() >= needed_bytes
    memory = {"max_memory": UNLIMITED} if fits else {}
    taps = ["projector", "lm.0", f"lm.{quarter}", f"lm.{depth}"]
    rounds = run_interleaved(
        settings, {"ours": ("this_package:encode_taps", {**options, "taps": taps, **memory})}
    )
    seconds = [output["seconds_of"] for output in rounds.outputs("ours")]
    base, shallow, deep = taps[0], taps[2], taps[3]
    return Result(
        what=f"time of {shallow} against {deep}, {CLIPS} clips of {SECONDS:g} s: the language "
        "model alone (the ratio), and the whole pipeline with the audio encoder"
        + ("" if fits else "; layers streamed, as memory does not hold them all"),
        dtype=DTYPE,
        figures={f"{tap}_seconds": median(by_tap[tap] for by_tap in seconds) for tap in taps}
        | {"whole_line_ratio": median(by_tap[shallow] / by_tap[deep] for by_tap in seconds)},
        ratio=median(
            (by_tap[shallow] - by_tap[base]) / (by_tap[deep] - by_tap[base]) for by_tap in seconds
        ),
        target=Target(0.32, at_most=True),
    )


def _options(settings: Settings) -> tuple[dict[str, Any], int, int]:
    """Options of the workloads, the number of decoder layers, and a quarter of it."""
    shape = SMALL if settings.quick else SEVEN_B
    options = {
        "checkpoint": str(random_checkpoint(settings.work, shape)),
        "seconds": SECONDS,
        "count": CLIPS,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    return options, shape.lm_layers, shape.lm_layers // 4

"""The language model: layer by layer in little memory, and only as deep as asked."""

from __future__ import annotations

from typing import Any

from .benchmark import Result, Settings, Target
from .checkpoints import SEVEN_B, SMALL, checkpoint
from .encoder import DTYPE
from .machine import available_bytes
from .rounds import in_turns, median

__all__ = ["lm_depth", "streamed_lm"]

CLIPS, SECONDS, GB = 8, 5.0, 1e9
ROOMY = "64GB"
"""More than the 7B takes: nothing is streamed."""


def streamed_lm(settings: Settings) -> Result:
    """The resident time is that of eight layers, four times over, so that this needs no 16 GB."""
    options, deep, measured = _options(settings)
    limit = "3GB" if not settings.quick else "1.5GB"
    resident = ["lm.0", f"lm.{measured}"]
    rounds = in_turns(
        settings,
        {
            "streamed": (
                "resources:streamed",
                {**options, "tap": f"lm.{deep}", "max_memory": limit},
            ),
            "resident": ("this_package:depths", {**options, "taps": resident, "max_memory": ROOMY}),
        },
        [{"cold": True}, {"cold": False}, {"cold": True}],
    )
    whole = [
        facts["seconds_of"][resident[0]]
        + (facts["seconds_of"][resident[1]] - facts["seconds_of"][resident[0]]) * deep / measured
        for facts in rounds.facts("resident")
    ]
    took = rounds.every("streamed", "encode_seconds")
    peak = max(rounds.every("streamed", "peak")) / GB
    cold = [took[place] / whole[place] for place in (0, 2)]
    return Result(
        what=f"lm.{deep} of {CLIPS} clips of {SECONDS:g} s with max_memory={limit}, the weights "
        f"coming from cold files, against all layers resident (lm.0, and {measured} layers "
        "measured and multiplied); peak memory of the process",
        dtype=DTYPE,
        figures={
            "peak_gb": peak,
            "streamed_cold_seconds": median(took[0::2]),
            "streamed_warm_seconds": took[1],
            "resident_seconds": median(whole),
            "warm_ratio": took[1] / whole[1],
        },
        ratio=median(cold),
        target=Target(1.25, at_most=True),
        conditions={"peak under 3 GB": peak < 3},
    )


def lm_depth(settings: Settings) -> Result:
    options, deep, shallow = _options(settings)
    needed = 17.5 * GB if not settings.quick else 0
    fits = available_bytes() >= needed
    memory = {"max_memory": ROOMY} if fits else {}
    taps = ["projector", "lm.0", f"lm.{shallow}", f"lm.{deep}"]
    rounds = in_turns(
        settings, {"ours": ("this_package:depths", {**options, "taps": taps, **memory})}
    )
    took = [facts["seconds_of"] for facts in rounds.facts("ours")]
    first, last = taps[2], taps[3]
    return Result(
        what=f"time of {first} against {last}, {CLIPS} clips of {SECONDS:g} s: the language "
        "model's part (the ratio), and the whole line with the ear"
        + ("" if fits else "; streamed, for want of memory to hold all layers"),
        dtype=DTYPE,
        figures={f"{tap}_seconds": median(of[tap] for of in took) for tap in taps}
        | {"whole_line_ratio": median(of[first] / of[last] for of in took)},
        ratio=median((of[first] - of[taps[0]]) / (of[last] - of[taps[0]]) for of in took),
        target=Target(0.32, at_most=True),
    )


def _options(settings: Settings) -> tuple[dict[str, Any], int, int]:
    """Of a turn; and how deep the whole language model is, and a quarter of it."""
    shape = SMALL if settings.quick else SEVEN_B
    options = {
        "checkpoint": str(checkpoint(settings.work, shape)),
        "seconds": SECONDS,
        "count": CLIPS,
        "dtype": DTYPE,
        "threads": settings.threads,
    }
    return options, shape.lm_layers, shape.lm_layers // 4

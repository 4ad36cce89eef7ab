"""What attention weights and occlusion cost, and whether occlusion points at speech in music."""

from __future__ import annotations

import time
from typing import Any

from recipes.study.speech_in_music import ANSWERS, QUESTION, inside, made_clips

from .benchmark import Result, Settings, Target
from .rounds import median, run_interleaved
from .synthetic_audio import SAMPLING_RATE, synthetic_clips
from .this_package import load_model
from .worker import Workload

__all__ = ["attention_weights", "occlusion", "speech_in_music"]

DTYPE = "float32"


def attention_weights(settings: Settings) -> Result:
    """A pass that records attention weights of the last position, against one that doesn't."""
    options = {"count": 2 if settings.quick else 16, "threads": settings.threads}
    rounds = run_interleaved(settings, {"both": ("attribution:pass_and_attention", options)})
    pairs = zip(rounds.values("both", "attention"), rounds.values("both", "pass"), strict=True)
    return Result(
        what="attention weights of one level at the last position, against the hidden states of "
        "that level, of clips of 6 s (embedded checkpoint)",
        dtype=DTYPE,
        figures={
            "attention_seconds": rounds.median_seconds("both", "attention"),
            "pass_seconds": rounds.median_seconds("both", "pass"),
        },
        ratio=median(attention / once for attention, once in pairs),
        target=Target(1.2, at_most=True),
    )


def pass_and_attention(count: int, threads: int) -> Workload:
    """Seconds of a pass up to the deepest level, without and with its attention weights."""
    model: Any = load_model("embedded", DTYPE, threads)
    clips = synthetic_clips(6.0, count)
    level = model.dimensions.lm_layers

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        model.encode(clips, tap=f"lm.{level}", span="last", sampling_rate=SAMPLING_RATE)
        middle = time.perf_counter()
        model.attention(clips, levels=[level], sampling_rate=SAMPLING_RATE)
        return {"pass": middle - start, "attention": time.perf_counter() - middle}

    run()
    return run


def occlusion(settings: Settings) -> Result:
    """23 windows of a clip of 6 s, against the score of the clip."""
    options = {"threads": settings.threads}
    rounds = run_interleaved(settings, {"both": ("attribution:score_and_occlusion", options)})
    pairs = zip(rounds.values("both", "occlusion"), rounds.values("both", "score"), strict=True)
    return Result(
        what="occlusion of 23 windows of a clip of 6 s, against one score of two answers "
        "(embedded checkpoint)",
        dtype=DTYPE,
        figures={
            "occlusion_seconds": rounds.median_seconds("both", "occlusion"),
            "score_seconds": rounds.median_seconds("both", "score"),
        },
        ratio=median(windows / once for windows, once in pairs),
        target=Target(8, at_most=True),
    )


def score_and_occlusion(threads: int) -> Workload:
    """Seconds of one score, and of an occlusion."""
    model: Any = load_model("embedded", DTYPE, threads)
    (clip,) = synthetic_clips(6.0, 1)
    audio = {"sampling_rate": SAMPLING_RATE}

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        model.score(clip, QUESTION, choices=list(ANSWERS), **audio)
        middle = time.perf_counter()
        model.occlusion(clip, QUESTION, answers=ANSWERS, **audio)
        return {"score": middle - start, "occlusion": time.perf_counter() - middle}

    run()
    return run


def speech_in_music(settings: Settings) -> Result:
    """How often the window that matters most is in the speech that was mixed into music."""
    clips = made_clips(2 if settings.quick else 20)
    found = inside(load_model("embedded", DTYPE, settings.threads), clips)
    share = sum(found) / len(found)
    return Result(
        what=f"peak of the occlusion inside 1.5 s of speech in 6 s of music, of {len(clips)} made "
        "clips (embedded checkpoint)",
        dtype=DTYPE,
        figures={"inside": sum(found), "clips": len(found)},
        ratio=share,
        target=Target(0.8, unit=""),
    )

"""What scores of choices and activation patching cost, in passes of the language model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .rounds import median, run_interleaved
from .synthetic_audio import SAMPLING_RATE, synthetic_clips
from .this_package import load_model
from .worker import Workload

__all__ = ["choices", "patching"]

DTYPE = "float32"
_SECONDS = 6.0
_ANSWERS = ("A piano leads.", "A flute plays alone.")


def choices(settings: Settings) -> Result:
    """Forty choices of 1 to 4 tokens against one, with the audio encoded once."""
    options = {"threads": settings.threads}
    rounds = run_interleaved(settings, {"both": ("interventions:scored_choices", options)})
    names = ("one_pass", "forty_choices", "four_alone")
    seconds = {name: rounds.values("both", name) for name in names}
    pairs = zip(seconds["forty_choices"], seconds["one_pass"], strict=True)
    return Result(
        what="scores of 40 choices of 1 to 4 tokens after a clip of 6 s, against one choice, with "
        "the audio encoded once; four choices each alone (embedded checkpoint)",
        dtype=DTYPE,
        figures={f"{name}_seconds": median(values) for name, values in seconds.items()},
        ratio=median(forty / one for forty, one in pairs),
        target=Target(3, at_most=True),
    )


def scored_choices(threads: int) -> Workload:
    """Seconds of one choice, of forty together, and of four each alone."""
    pipeline = load_model("embedded", DTYPE, threads).pipeline
    (clip,) = synthetic_clips(_SECONDS, 1)
    (rows,) = pipeline.encode_audio([pipeline.log_mel(clip)])
    prompt = pipeline.tokenizer.render("Which instrument leads?")
    random = np.random.default_rng(0)
    # As labels do, some share what they begin with: lengths 1, 2, 3, 4 in turn.
    forty = [(10 + k, *(int(t) for t in random.integers(100, 1000, k % 4))) for k in range(40)]
    runs: dict[str, Callable[[], object]] = {
        "one_pass": lambda: pipeline.score(prompt, [[rows]], [(5,)]),
        "forty_choices": lambda: pipeline.score(prompt, [[rows]], forty),
        "four_alone": lambda: [pipeline.score(prompt, [[rows]], [each]) for each in forty[:4]],
    }
    return _timed(runs)


def patching(settings: Settings) -> Result:
    """A trace of all levels and four spans, in passes."""
    options = {"threads": settings.threads}
    rounds = run_interleaved(settings, {"all": ("interventions:traced_pair", options)})
    names = ("encoder", "pass", "trace")
    seconds = {name: rounds.values("all", name) for name in names}
    triples = zip(*(seconds[name] for name in ("trace", "encoder", "pass")), strict=True)
    passes = median((trace - encoder) / once for trace, encoder, once in triples)
    levels = round(rounds.values("all", "levels")[0])
    return Result(
        what=f"trace of a pair of clips of 6 s at {levels} levels × 4 spans, the encoder left out, "
        "against as many passes as levels × spans / 4 (embedded checkpoint)",
        dtype=DTYPE,
        figures={f"{name}_seconds": median(values) for name, values in seconds.items()}
        | {"passes": passes, "levels": levels},
        ratio=passes / levels,
        target=Target(1, at_most=True),
    )


def traced_pair(threads: int) -> Workload:
    """Seconds of the encoder, of a pass over audio and prompt, and of a trace; and its levels."""
    from qwen_audio.inference.reducers import last_row
    from qwen_audio.models.tap import Stage, Tap

    model: Any = load_model("embedded", DTYPE, threads)
    pipeline = model.pipeline
    one, two = synthetic_clips(_SECONDS, 2)
    prompt = pipeline.tokenizer.render(None)
    rows = pipeline.encode_audio([pipeline.log_mel(one)])
    (item,) = pipeline.build_inputs(prompt, [rows])
    runs: dict[str, Callable[[], object]] = {
        "encoder": lambda: pipeline.encode_audio([pipeline.log_mel(one), pipeline.log_mel(two)]),
        "pass": lambda: pipeline.lm.forward([item], [Tap(Stage.LM_NORM)], last_row),
        "trace": lambda: model.trace(one, two, answers=_ANSWERS, sampling_rate=SAMPLING_RATE),
    }
    levels = model.dimensions.lm_layers + 1
    timed = _timed(runs)
    return lambda: {**timed(), "levels": levels}


def _timed(runs: dict[str, Callable[[], object]]) -> Workload:
    """Seconds of each, once they have run."""

    def run() -> dict[str, Any]:
        seconds = {}
        for name, each in runs.items():
            start = time.perf_counter()
            each()
            seconds[name] = time.perf_counter() - start
        return seconds

    run()
    return run

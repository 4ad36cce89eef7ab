"""Activation patching of all levels and spans, in passes of the language model over one clip."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

import qwen_audio as qa
from qwen_audio.inference.reducers import last_row
from qwen_audio.models.tap import Stage, Tap

__all__ = ["all_levels_and_spans"]

_SECONDS = 6.0
_ANSWERS = ("A piano leads.", "A flute plays alone.")


def all_levels_and_spans(model: qa.AudioModel, rounds: int = 5) -> dict[str, float]:
    """Seconds of a trace of all levels and four spans, and of a pass over audio and prompt; both
    with the audio's encoder. The ratio is in passes, without the encoder; `allowed` is a quarter of
    levels × spans."""
    pipeline = model.pipeline
    random = np.random.default_rng(0)
    one, two = (
        random.normal(size=round(_SECONDS * 16_000)).astype(np.float32) * scale
        for scale in (0.1, 0.02)
    )
    prompt = pipeline.tokenizer.render(None)

    def encode() -> list[object]:
        return list(pipeline.encode_audio([pipeline.log_mel(one), pipeline.log_mel(two)]))

    rows = pipeline.encode_audio([pipeline.log_mel(one)])
    (item,) = pipeline.build_inputs(prompt, [[rows[0]]])
    runs: dict[str, Callable[[], object]] = {
        "encoder": encode,
        "pass": lambda: pipeline.lm.forward([item], [Tap(Stage.LM_NORM)], last_row),
        "trace": lambda: model.trace(one, two, answers=_ANSWERS, sampling_rate=16_000),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first warms up
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - started)
    triples = zip(times["trace"], times["encoder"], times["pass"], strict=True)
    levels = model.dimensions.lm_layers + 1
    return {
        **{f"{name}_seconds": median(values) for name, values in times.items()},
        "passes": median((trace - encoder) / single for trace, encoder, single in triples),
        "allowed": levels * 4 / 4,
    }


def main() -> None:
    """Print the figures of the embedded checkpoint, and of each that is named."""
    for name in ("embedded", *sys.argv[1:]):
        model = qa.load(name, dtype="float32")
        figures = all_levels_and_spans(model)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        print(f"{Path(name).name} ({model.dtype}): {shown}")


if __name__ == "__main__":
    main()

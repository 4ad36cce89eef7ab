"""Scores of forty choices against one pass of the language model, with the audio encoded once."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

import qwen_audio as qa

__all__ = ["forty_choices"]

_SECONDS = 6.0


def forty_choices(model: qa.AudioModel, rounds: int = 7) -> dict[str, float]:
    """Seconds of one pass, of forty choices of 1 to 4 tokens in one pass, and of four choices
    each alone; and their medians as ratios to one pass, of rounds in turn (alone: for forty)."""
    pipeline = model.pipeline
    random = np.random.default_rng(0)
    sound = random.normal(size=round(_SECONDS * 16_000)).astype(np.float32) * 0.1
    (rows,) = pipeline.encode_audio([pipeline.log_mel(sound)])
    prompt = pipeline.tokenizer.render("Which instrument leads?")
    # As labels do, some share what they begin with: lengths 1, 2, 3, 4 in turn.
    choices = [
        (int(10 + k), *(int(t) for t in random.integers(100, 1000, k % 4))) for k in range(40)
    ]
    one = [(5,)]

    def timed(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    runs: dict[str, Callable[[], object]] = {
        "one_pass": lambda: pipeline.score(prompt, [[rows]], one),
        "forty_choices": lambda: pipeline.score(prompt, [[rows]], choices),
        "four_alone": lambda: [pipeline.score(prompt, [[rows]], [each]) for each in choices[:4]],
    }
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _, (name, run) in itertools.product(range(rounds), runs.items()):
        times[name].append(timed(run))
    pairs = zip(times["forty_choices"], times["one_pass"], strict=True)
    alone = zip(times["four_alone"], times["one_pass"], strict=True)
    return {
        **{f"{name}_seconds": median(values) for name, values in times.items()},
        "ratio": median(a / b for a, b in pairs),
        "ratio_alone": 10 * median(a / b for a, b in alone),
    }


def main() -> None:
    """Print the figures for each checkpoint that is named; the embedded one first."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in ("embedded", *sys.argv[1:]):
        model = qa.load(name, dtype="float32" if name == "embedded" else "bfloat16")
        figures = forty_choices(model)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        print(f"{Path(name).name} ({model.dtype}): {shown}")


if __name__ == "__main__":
    main()

"""Probing 2,000 clips at every tap: first without, then with cached embeddings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .machine import require_linux, require_packages
from .resources import peak_bytes
from .rounds import run_in_new_process
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_model
from .worker import Workload

__all__ = ["probing"]

DTYPE = "float32"
CLIPS, CLASSES = 2000, 10


def probing(settings: Settings) -> Result:
    """Probe amplitude modulation frequencies, then random labels of the same clips."""
    require_packages("sklearn", "soundfile")
    require_linux()
    count = 60 if settings.quick else CLIPS
    with tempfile.TemporaryDirectory() as folder:
        options = {"folder": folder, "count": count, "threads": settings.threads}
        first, again = (
            run_in_new_process(settings, ("probing:probe_clips", {**options, "target": target}))
            for target in ("beat", "other")
        )
    return Result(
        what=f"{count} clips of 5 s probed at every tap of the embedded checkpoint (logistic "
        f"regression and neighbours, {CLASSES} classes, five folds, weighted sums, controls): "
        "first, and again in a new process with other labels and cached embeddings",
        dtype=DTYPE,
        figures={
            "first_seconds": first["seconds"],
            "first_peak_gb": first["peak"] / 1e9,
            "again_seconds": again["seconds"],
            "again_peak_gb": again["peak"] / 1e9,
        },
        ratio=first["seconds"],
        target=Target(360, at_most=True, unit=" s"),
        conditions={
            "again in 20 s": again["seconds"] <= 20,
            "in 2 GB": max(first["peak"], again["peak"]) <= 2e9,
        },
        packages=("scikit-learn",),
    )


def probe_clips(folder: str, count: int, threads: int, target: str) -> Workload:
    """Seconds and peak memory of probing one target, with a cache."""
    import qwen_audio as qa

    rows = _write_clips(Path(folder), count)
    model = load_model("embedded", DTYPE, threads)

    def run() -> dict[str, Any]:
        scores = qa.probe(rows, model, targets=[target], cache=Path(folder) / "cache")
        assert (scores.recordings == count).all()
        return {"peak": peak_bytes()}

    return run


def _write_clips(folder: Path, count: int) -> list[dict[str, Any]]:
    """Glides modulated at 1 to 10 Hz (target "beat"), with random classes (target "other").

    Files that exist are not written again. Returns rows for `qa.probe`.
    """
    import soundfile

    random = np.random.default_rng(0)
    beat_classes, other_classes = (random.permutation(np.arange(count) % CLASSES) for _ in range(2))
    rows = []
    for number in range(count):
        path = folder / f"{number:05d}.flac"
        if not path.is_file():
            clip = synthetic_clip(5.0, number)
            time = np.arange(len(clip)) / SAMPLING_RATE
            envelope = 0.5 + 0.5 * np.sin(2 * np.pi * (1 + beat_classes[number]) * time)
            soundfile.write(path, (clip * envelope).astype(np.float32), SAMPLING_RATE)
        labels = {
            "beat": f"{beat_classes[number] + 1} Hz",
            "other": f"other {other_classes[number]}",
        }
        rows.append({"source": str(path), **labels})
    return rows

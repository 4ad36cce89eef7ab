"""Peak memory for ten hours of audio against ten minutes, for everything that streams windows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .indexing import index_files
from .machine import require_linux, require_packages
from .resources import EMBEDDED, peak_bytes
from .rounds import run_once
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_model
from .worker import Workload

__all__ = ["long_recordings", "peak_memory"]

SHORT_SECONDS, LONG_SECONDS = 600, 36_000
DTYPE = "float32"


def long_recordings(settings: Settings) -> Result:
    require_packages("lancedb", "soundfile")
    require_linux()
    long_seconds = SHORT_SECONDS + 60 if settings.quick else LONG_SECONDS
    short, long = (
        str(recording(settings.work, seconds)) for seconds in (SHORT_SECONDS, long_seconds)
    )
    figures: dict[str, Any] = {"short_seconds": SHORT_SECONDS, "long_seconds": long_seconds}
    ratios = {}
    for use in USES:
        options = {"use": use, "threads": settings.threads}
        peaks = []
        for name, path in (("short", short), ("long", long)):
            job = ("long_recordings:peak_memory", options | {"path": path})
            output = run_once(settings, job)
            figures[f"{use}_{name}_gb"] = output["peak"] / 1e9
            figures[f"{use}_{name}_run_seconds"] = output["seconds"]
            peaks.append(output["peak"])
        ratios[use] = figures[f"{use}_ratio"] = peaks[1] / peaks[0]
    return Result(
        what=f"peak memory of a process for one recording of {long_seconds / 3600:g} hours against "
        f"{SHORT_SECONDS / 60:g} minutes: the largest ratio of {', '.join(USES)}",
        dtype=DTYPE,
        figures=figures,
        ratio=max(ratios.values()),
        target=Target(1.2, at_most=True),
        packages=("lancedb",),
    )


def recording(work: Path, seconds: int) -> Path:
    """A FLAC file of this length, written minute by minute unless it exists."""
    import soundfile

    work.mkdir(parents=True, exist_ok=True)
    path = work / f"recording_{seconds}s.flac"
    if not path.is_file():
        unfinished = path.with_suffix(".unfinished")
        with soundfile.SoundFile(unfinished, "w", SAMPLING_RATE, 1, format="FLAC") as file:
            for minute in range(seconds // 60):
                file.write(synthetic_clip(60, minute % 10))
        unfinished.rename(path)
    return path


def peak_memory(path: str, use: str, threads: int) -> Workload:
    """Peak memory of one use of a recording, model and libraries included."""
    model = load_model(EMBEDDED, DTYPE, threads)

    def run() -> dict[str, Any]:
        USES[use](model, path)
        return {"peak": peak_bytes()}

    return run


def _describe(model: Any, path: str) -> None:
    model.describe(path, max_new_tokens=8)


def _encode_recording(model: Any, path: str) -> None:
    assert np.isfinite(model.encode(path)).all()


def _encode_windows(model: Any, path: str) -> None:
    assert len(model.encode(path, per="window", window_seconds=10, hop_seconds=5)) > 100


def _encode_each(model: Any, path: str) -> None:
    assert np.isfinite(next(iter(model.encode_each([path])))).all()


def _index(model: Any, path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        index_files(model, Path(folder) / "recording.lance", [path])


USES: dict[str, Callable[[Any, str], None]] = {
    "describe": _describe,
    "encode_recording": _encode_recording,
    "encode_windows": _encode_windows,
    "encode_each": _encode_each,
    "index": _index,
}

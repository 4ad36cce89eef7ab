"""Start of commands: a whole process, against one that only imports the libraries it needs.

Warm: files in the page cache, bytecode compiled. Ratios are of processor seconds, which other
processes on the machine change little; wall-clock seconds are beside them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .benchmark import Result, Settings, Target, log_progress
from .machine import require_packages
from .rounds import ROOT, median

__all__ = ["start", "start_collection", "start_index"]

CLIP_SECONDS = 5.0


class _Seconds(NamedTuple):
    """Time of one process: user and system time, and from start to end."""

    processor: float
    wall: float


def start(settings: Settings) -> Result:
    """`describe` of one clip, against importing torch and transformers."""
    require_packages("soundfile")
    with tempfile.TemporaryDirectory() as folder:
        clip = _clip(Path(folder))
        return _measure(
            settings,
            f"describe {CLIP_SECONDS:g} s of audio with the embedded checkpoint",
            "torch, transformers",
            {"describe": _command("describe", str(clip))},
            Target(1.5, at_most=True),
        )


def start_collection(settings: Settings) -> Result:
    """Commands that read a collection without a model, against importing lancedb."""
    require_packages("lancedb", "soundfile")
    with tempfile.TemporaryDirectory() as folder:
        collection = str(Path(folder) / "c.lance")
        clip = _clip(Path(folder))
        _run(_command("index", str(clip), "--describe", "-o", collection))
        return _measure(
            settings,
            "full-text search and collection info, list and failures, the slowest of them",
            "lancedb",
            {
                "search_text": _command("search", collection, "--text", "guitar"),
                **{
                    name: _command("collection", name, collection)
                    for name in ("info", "list", "failures")
                },
            },
            Target(1.5, at_most=True),
        )


def start_index(settings: Settings) -> Result:
    """Commands that encode one clip, against importing lancedb, torch and transformers."""
    require_packages("lancedb", "soundfile")
    with tempfile.TemporaryDirectory() as folder:
        clip = str(_clip(Path(folder)))
        existing, new = (str(Path(folder) / name) for name in ("existing.lance", "new.lance"))
        _run(_command("index", clip, "-o", existing))
        return _measure(
            settings,
            f"index one new file of {CLIP_SECONDS:g} s, and search by one, the slower of them",
            "lancedb, torch, transformers",
            {
                "index": _command("index", clip, "-o", new),
                "search_audio": _command("search", existing, "--audio", clip),
            },
            Target(1.4, at_most=True),
            before={"index": lambda: shutil.rmtree(new, ignore_errors=True)},
        )


def _measure(
    settings: Settings,
    what: str,
    imports: str,
    commands: Mapping[str, Sequence[str]],
    target: Target,
    before: Mapping[str, Callable[[], None]] | None = None,
) -> Result:
    """Time the imports and every command in interleaved rounds; the largest ratio is reported."""
    timed = {"imports": [sys.executable, "-c", f"import {imports}"], **commands}
    seconds: dict[str, list[_Seconds]] = {name: [] for name in timed}
    for number in range(1 if settings.quick else 1 + max(settings.rounds, 5)):
        for name, command in timed.items():
            (before or {}).get(name, lambda: None)()
            measured = _run(command)
            if number or settings.quick:  # the first round is a warm-up
                seconds[name].append(measured)
        latest = (f"{name} {values[-1]}" for name, values in seconds.items() if values)
        log_progress(f"  {number}: {', '.join(latest)}")
    ratios = {
        name: median(
            a.processor / b.processor
            for a, b in zip(seconds[name], seconds["imports"], strict=True)
        )
        for name in commands
    }
    figures = {f"{name}_ratio": ratio for name, ratio in ratios.items()}
    for name, values in seconds.items():
        figures[f"{name}_processor_seconds"] = median(item.processor for item in values)
        figures[f"{name}_wall_seconds"] = median(item.wall for item in values)
    return Result(
        what=f"{what}, warm, a process from start to end, against `import {imports}`, in processor "
        "seconds",
        dtype="float32",
        figures=figures,
        ratio=max(ratios.values()),
        target=target,
    )


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "qwen_audio", *arguments]


def _run(command: Sequence[str]) -> _Seconds:
    before, start_time = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after, wall = os.times(), time.perf_counter() - start_time
    return _Seconds(
        after.children_user + after.children_system - before.children_user - before.children_system,
        wall,
    )


def _clip(folder: Path) -> Path:
    """The first example, repeated or cut to the length."""
    import soundfile

    samples, rate = soundfile.read(ROOT / "examples" / "guitar.flac")
    path = folder / "clip.flac"
    soundfile.write(path, np.resize(samples, round(CLIP_SECONDS * rate)), rate)
    return path

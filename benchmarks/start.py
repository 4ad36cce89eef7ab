"""How long a newcomer waits: a whole warm `qwen-audio describe` of 5 s of audio, as a process,
against `python -c "import torch, transformers"`, turn by turn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .machine import need
from .settings import Result, Settings, Target, say
from .turns import ROOT, median

__all__ = ["start"]

SECONDS = 5.0


def start(settings: Settings) -> Result:
    """As users start it: with as many threads as torch takes."""
    need("soundfile")
    turns = 1 if settings.quick else max(settings.turns, 7)
    with tempfile.TemporaryDirectory() as folder:
        clip = _five_seconds(Path(folder))
        describe = [sys.executable, "-m", "qwen_audio.cli.main", "describe", str(clip)]
        imports = [sys.executable, "-c", "import torch, transformers"]
        if not settings.quick:  # warm: files in the page cache, bytecode compiled
            _timed(describe), _timed(imports)
        pairs = []
        for number in range(turns):
            pairs.append((_timed(imports), _timed(describe)))
            say(f"  {number + 1}/{turns} {pairs[-1][0]:.2f} s, {pairs[-1][1]:.2f} s")
    return Result(
        what=f"describe {SECONDS:g} s of audio with the embedded checkpoint, warm, a process from "
        "start to end, against importing torch and transformers",
        dtype="float32",
        figures={
            "describe_seconds": median(pair[1] for pair in pairs),
            "import_seconds": median(pair[0] for pair in pairs),
            "turns": turns,
        },
        ratio=median(b / a for a, b in pairs),
        target=Target(2, at_most=True),
    )


def _timed(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _five_seconds(folder: Path) -> Path:
    """The first example, repeated or cut to 5 s."""
    import soundfile

    samples, rate = soundfile.read(ROOT / "examples" / "guitar.flac")
    path = folder / "five_seconds.flac"
    soundfile.write(path, np.resize(samples, round(SECONDS * rate)), rate)
    return path

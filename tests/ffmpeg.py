"""Files by the ffmpeg program, and what it decodes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soxr

from recordings import Samples


def run_ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg. Where there is none: fails in CI, skips elsewhere."""
    if shutil.which("ffmpeg") is None:
        message = "formats are tested with the ffmpeg program: install ffmpeg"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    subprocess.run([*command, *map(str, arguments)], check=True, capture_output=True)


def encode_all(source: Path, files: Mapping[Path, Sequence[str]]) -> None:
    """Encode one file into several, each with its own arguments, in one process."""
    arguments = [argument for path, options in files.items() for argument in (*options, str(path))]
    run_ffmpeg("-i", source, *arguments)


def decode_all(files: Sequence[Path], folder: Path) -> dict[Path, Samples]:
    """Mono samples at 16 kHz of each file: decoded by ffmpeg, mixed to mono, resampled by soxr."""
    inputs = [argument for path in files for argument in ("-i", str(path))]
    outputs = []
    for number in range(len(files)):
        outputs += ["-map", f"{number}:a:0", "-f", "caf", "-c:a", "pcm_f32le"]
        outputs += [str(folder / f"{number}.caf")]
    run_ffmpeg(*inputs, *outputs)
    decoded = {}
    for number, path in enumerate(files):
        import soundfile

        samples, rate = soundfile.read(folder / f"{number}.caf", dtype="float32", always_2d=True)
        mono = samples.mean(axis=1, dtype=np.float32)
        decoded[path] = soxr.resample(mono, rate, 16_000, "HQ")
    return decoded

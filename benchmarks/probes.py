"""Turns that watch their own process: bytes from disk, and peak memory. Linux only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from .clips import RATE, sound, sounds
from .contender import Turn
from .ours import opened

__all__ = ["command_bytes", "memory", "python_bytes", "streamed"]

EMBEDDED = "embedded"


def python_bytes(checkpoint: str, dtype: str, threads: int) -> Turn:
    """Bytes that opening the checkpoint and encoding one clip reads."""
    clip = sound(5.0)
    opened(EMBEDDED, dtype, threads).encode(clip, tap="audio_tower", sampling_rate=RATE)

    def turn() -> dict[str, Any]:
        forget(Path(checkpoint))
        before = _read_so_far()
        model = opened(checkpoint, dtype, threads)
        model.encode(clip, tap="audio_tower", sampling_rate=RATE)
        return _since(before)

    return turn


def command_bytes(checkpoint: str, dtype: str, threads: int) -> Turn:
    """The same for `qwen-audio encode`, with all that it does: its Spec reads a few bytes of every
    tensor, to tell the checkpoint from others."""
    import soundfile
    import torch

    from qwen_audio.cli.main import main

    torch.set_num_threads(threads)
    folder = Path(tempfile.mkdtemp())
    clip = folder / "clip.flac"
    soundfile.write(clip, sound(5.0), RATE)

    def encode(model: str) -> None:
        with contextlib.redirect_stdout(None):
            command = ["encode", str(clip), "--tap", "audio_tower", "--model", model]
            status = main([*command, "--dtype", dtype, "-o", str(folder / "vectors.npz")])
        assert status == 0

    encode(EMBEDDED)  # what it imports is read by now

    def turn() -> dict[str, Any]:
        forget(Path(checkpoint))
        before = _read_so_far()
        encode(checkpoint)
        return _since(before)

    return turn


def memory(checkpoint: str, lengths: list[float], dtype: str, threads: int) -> Turn:
    """Peak memory of everything: Python, its libraries, the weights and the work."""
    import torch  # noqa: F401
    import transformers  # noqa: F401

    imports = peak_bytes()

    def turn() -> dict[str, Any]:
        model = opened(checkpoint, dtype, threads)
        clips = [sound(seconds, seed) for seed, seconds in enumerate(lengths)]
        model.encode(clips, tap="audio_tower", sampling_rate=RATE)
        return {"peak": peak_bytes(), "imports": imports}

    return turn


def streamed(
    checkpoint: str,
    seconds: float,
    count: int,
    tap: str,
    max_memory: str,
    dtype: str,
    threads: int,
) -> Turn:
    """A deep tap in little memory; `cold` where the files must come from the disk."""
    model = opened(checkpoint, dtype, threads, max_memory)
    clips = sounds(seconds, count)
    model.encode(clips[:1], tap="lm.0", sampling_rate=RATE)

    def turn(cold: bool) -> dict[str, Any]:
        if cold:
            forget(Path(checkpoint))
        start = perf_counter()
        model.encode(clips, tap=tap, sampling_rate=RATE)
        return {"encode_seconds": perf_counter() - start, "peak": peak_bytes()}

    return turn


def peak_bytes() -> int:
    """The most that this process has had in memory, mapped files included (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget(folder: Path) -> None:
    """Drop a folder's weights from the page cache, so that reading them means the disk."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_so_far() -> dict[str, int]:
    pairs = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(number) for name, number in pairs}


def _since(before: dict[str, int]) -> dict[str, int]:
    """Bytes asked of the system, and bytes that it fetched from the disk: a memory map shows up
    only in the second, what was in the page cache only in the first."""
    now = _read_so_far()
    return {
        "asked": now["rchar"] - before["rchar"],
        "fetched": now["read_bytes"] - before["read_bytes"],
    }

"""Workloads that measure their own process: bytes read from disk, and peak memory. Linux only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from .synthetic_audio import SAMPLING_RATE, synthetic_clip, synthetic_clips
from .this_package import load_model
from .worker import Workload

__all__ = ["command_bytes", "memory", "python_bytes", "resident_bytes", "streamed"]

EMBEDDED = "embedded"


def python_bytes(checkpoint: str, dtype: str, threads: int) -> Workload:
    """Bytes read to load the checkpoint and encode one clip."""
    clip = synthetic_clip(5.0)
    load_model(EMBEDDED, dtype, threads).encode(
        clip, tap="audio_tower", sampling_rate=SAMPLING_RATE
    )

    def run() -> dict[str, Any]:
        drop_page_cache(Path(checkpoint))
        before = _io_counters()
        model = load_model(checkpoint, dtype, threads)
        model.encode(clip, tap="audio_tower", sampling_rate=SAMPLING_RATE)
        return _bytes_read_since(before)

    return run


def command_bytes(checkpoint: str, dtype: str, threads: int) -> Workload:
    """Bytes read by the command `qwen-audio encode`.

    Its embedding spec identifies the checkpoint by a few bytes of every tensor.
    """
    import soundfile
    import torch

    from qwen_audio.cli.main import main

    torch.set_num_threads(threads)
    folder = Path(tempfile.mkdtemp())
    clip = folder / "clip.flac"
    soundfile.write(clip, synthetic_clip(5.0), SAMPLING_RATE)

    def encode(model: str) -> None:
        with contextlib.redirect_stdout(None):
            command = ["encode", str(clip), "--tap", "audio_tower", "--model", model]
            status = main([*command, "--dtype", dtype, "-o", str(folder / "vectors.npz")])
        assert status == 0

    encode(EMBEDDED)  # so that imports are not counted

    def run() -> dict[str, Any]:
        drop_page_cache(Path(checkpoint))
        before = _io_counters()
        encode(checkpoint)
        return _bytes_read_since(before)

    return run


def memory(checkpoint: str, lengths: list[float], dtype: str, threads: int) -> Workload:
    """Peak memory of the process: Python, its libraries, weights and computation."""
    import torch  # noqa: F401
    import transformers  # noqa: F401

    imports = peak_bytes()

    def run() -> dict[str, Any]:
        model = load_model(checkpoint, dtype, threads)
        clips = [synthetic_clip(seconds, seed) for seed, seconds in enumerate(lengths)]
        model.encode(clips, tap="audio_tower", sampling_rate=SAMPLING_RATE)
        return {"peak": peak_bytes(), "imports": imports}

    return run


def streamed(
    checkpoint: str,
    seconds: float,
    count: int,
    tap: str,
    max_memory: str,
    dtype: str,
    threads: int,
) -> Workload:
    """A deep tap with a memory limit; `cold` drops the weights from the page cache first."""
    model = load_model(checkpoint, dtype, threads, max_memory)
    clips = synthetic_clips(seconds, count)
    model.encode(clips[:1], tap="lm.0", sampling_rate=SAMPLING_RATE)

    def run(cold: bool) -> dict[str, Any]:
        if cold:
            drop_page_cache(Path(checkpoint))
        start = perf_counter()
        model.encode(clips, tap=tap, sampling_rate=SAMPLING_RATE)
        return {"encode_seconds": perf_counter() - start, "peak": peak_bytes()}

    return run


def peak_bytes() -> int:
    """Peak resident memory of this process, including mapped files (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def resident_bytes(process_id: int) -> int:
    """Resident memory of a process."""
    pages = Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def drop_page_cache(folder: Path) -> None:
    """Drop a folder's weights from the page cache, so that they are read from the disk."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _io_counters() -> dict[str, int]:
    pairs = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(number) for name, number in pairs}


def _bytes_read_since(before: dict[str, int]) -> dict[str, int]:
    """Bytes requested by system calls (`asked`), and bytes read from the disk (`fetched`).

    Memory-mapped files count only as fetched, files in the page cache only as asked.
    """
    now = _io_counters()
    return {
        "asked": now["rchar"] - before["rchar"],
        "fetched": now["read_bytes"] - before["read_bytes"],
    }

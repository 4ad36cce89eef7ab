"""Crash safety of indexing: processes killed at random moments, then a run to the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .benchmark import Result, Settings, Target, log_progress
from .indexing import DTYPE, short_files
from .machine import require_packages
from .rounds import ROOT, worker_environment

__all__ = ["kills"]

_INDEX_SCRIPT = """
import sys
from pathlib import Path
from benchmarks.indexing import index_files, load_embedded
model = load_embedded(int(sys.argv[2]))
print("ready", flush=True)
index_files(model, Path(sys.argv[1]), sys.stdin.read().splitlines())
"""


def kills(settings: Settings) -> Result:
    """Kill indexing (SIGKILL) again and again, then compare with an uninterrupted run."""
    require_packages("lancedb", "soundfile")
    times = 2 if settings.quick else 20
    paths = short_files(settings, 40 if settings.quick else 1500, 5.0)
    from qwen_audio.collection.table import WindowTable

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted = Path(folder) / "uninterrupted.lance"
        killed = Path(folder) / "killed.lance"
        start = time.monotonic()
        _index_in_process(settings, uninterrupted, paths)
        # A fifth of an uninterrupted run: on a machine of any speed, some kills interrupt the start
        # of the process, and most of them its work.
        longest, rows_after_kill = (time.monotonic() - start) / 5, []
        for number in range(times):
            delay = float(random.uniform(0, longest))
            _index_in_process(settings, killed, paths, kill_after_seconds=delay)
            rows_after_kill.append(_row_set(killed)[0] if WindowTable.exists(killed) else 0)
            log_progress(f"  {number + 1}/{times} killed, {rows_after_kill[-1]} rows")
        _index_in_process(settings, killed, paths)
        rows, row_set = _row_set(killed)
        expected_rows, expected_row_set = _row_set(uninterrupted)
    return Result(
        what=f"rows after {times} kills at random moments and a last run, against those of an "
        f"uninterrupted run over the same {len(paths)} files",
        dtype=DTYPE,
        figures={
            "rows_after_each_kill": rows_after_kill,
            "rows": rows,
            "expected": expected_rows,
        },
        ratio=rows / expected_rows,
        target=Target(1),
        conditions={
            "the same rows, each once": rows == len(row_set) and row_set == expected_row_set,
            # In a dry run nearly all of the time is the start of the process.
            "some kills interrupt the work": settings.quick
            or any(0 < count < expected_rows for count in rows_after_kill),
        },
        packages=("lancedb",),
    )


def _index_in_process(
    settings: Settings, path: Path, paths: list[str], kill_after_seconds: float | None = None
) -> None:
    """Index files in a process of its own.

    Args:
        kill_after_seconds: counted from when the model is loaded.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _INDEX_SCRIPT, str(path), str(settings.threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=worker_environment(settings.threads),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(paths))
    process.stdin.close()
    process.stdout.readline()
    if kill_after_seconds is not None:
        time.sleep(kill_after_seconds)
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _row_set(path: Path) -> tuple[int, set[tuple[str, int, str, bytes]]]:
    """Number of rows, and the set of their sources, windows, hashes and vectors."""
    import lancedb

    names = ["source", "window", "content_hash", "vector"]
    rows = lancedb.connect(path.parent).open_table(path.stem).to_arrow().select(names).to_pylist()
    return len(rows), {
        (row["source"], row["window"], row["content_hash"], np.float16(row["vector"]).tobytes())
        for row in rows
    }

"""Transactions: killed processes leave no partial recordings, concurrent ones no duplicates.

What a kill leaves at every commit is in test_interruptions.py; here processes are really killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qwen_audio as qa
from collection_helpers import vectors_by_window, write_recording
from commands import FAST_IMPORT
from qwen_audio.collection.collection import Collection

INDEXING_SCRIPT = f"""
{FAST_IMPORT}
import sys
from qwen_audio.collection import writer
from qwen_audio.collection.collection import Collection
writer._ROWS_PER_COMMIT = 4
path, folder, checkpoint = sys.argv[1:]
model = qa.load(checkpoint, dtype="float32")
try:
    collection = Collection.create(path, model, window_seconds=1.0)
except qa.CollectionError:
    collection = Collection.open(path, model)
print("ready", flush=True)
sys.stdin.readline()
collection.index(folder, on_progress=lambda progress: print(progress.encoded, flush=True))
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def forty_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 recordings of 0.3, 1.3 and 2.3 s."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(40):
        write_recording(folder / f"{number:02}.wav", 0.3 + number % 3, number)
    return folder


@pytest.fixture(scope="module")
def unbroken(
    forty_files: Path, model: qa.AudioModel, tmp_path_factory: pytest.TempPathFactory
) -> Collection:
    """They, indexed by one process that nothing stops."""
    path = tmp_path_factory.mktemp("unbroken") / "c.lance"
    collection = Collection.create(path, model, window_seconds=1.0)
    collection.index(forty_files)
    return collection


@pytest.fixture
def indexers() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed after the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start_indexer(
    indexers: list[subprocess.Popen[str]], path: Path, folder: Path, checkpoint: Path
) -> subprocess.Popen[str]:
    """A process that has loaded the model and waits before indexing."""
    process = subprocess.Popen(
        [sys.executable, "-c", INDEXING_SCRIPT, str(path), str(folder), str(checkpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    indexers.append(process)
    return process


def start_indexing(process: subprocess.Popen[str]) -> None:
    """Wait until the process has loaded the model, and let it index."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.slow
def test_the_next_run_completes_a_killed_one(
    tmp_path: Path,
    forty_files: Path,
    unbroken: Collection,
    checkpoint: Path,
    indexers: list[subprocess.Popen[str]],
) -> None:
    path = tmp_path / "killed.lance"
    random = np.random.default_rng(0)
    process = start_indexer(indexers, path, forty_files, checkpoint)
    start_indexing(process)
    assert process.stdout is not None
    for _ in range(15):
        assert process.stdout.readline().strip().isdigit()
    time.sleep(random.uniform(0, 0.05))  # within decoding, computing, or writing
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    broken = Collection.open(path, unbroken.model)
    assert 0 < len(broken) < len(unbroken)
    assert broken.index(forty_files).unchanged > 0
    assert vectors_by_window(broken) == vectors_by_window(unbroken)
    assert broken.verify(sample=5).problems == ()


@pytest.mark.slow
def test_two_processes_write_each_row_once(
    tmp_path: Path,
    forty_files: Path,
    unbroken: Collection,
    checkpoint: Path,
    indexers: list[subprocess.Popen[str]],
) -> None:
    path = tmp_path / "both.lance"
    processes = [start_indexer(indexers, path, forty_files, checkpoint) for _ in range(2)]
    for process in processes:
        start_indexing(process)
    for process in processes:
        output, _ = process.communicate()
        assert output.endswith("done\n")
    assert vectors_by_window(Collection.open(path)) == vectors_by_window(unbroken)

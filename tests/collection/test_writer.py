"""Transactions: killed processes leave no partial recordings, concurrent ones no duplicates.

What a kill leaves at every commit is in test_interruptions.py; here processes are really killed.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest

import qwen_audio as qa
from collection_helpers import vectors_by_window, write_recording
from forked import ForkedProcess
from qwen_audio.collection.collection import Collection

INDEXING_SCRIPT = """
import sys
import qwen_audio as qa
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
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 recordings of 0.3, 1.3 and 2.3 s."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(24):
        write_recording(folder / f"{number:02}.wav", 0.3 + number % 3, number)
    return folder


@pytest.fixture(scope="module")
def unbroken(
    many_files: Path, model: qa.AudioModel, tmp_path_factory: pytest.TempPathFactory
) -> Collection:
    """They, indexed by one process that nothing stops."""
    path = tmp_path_factory.mktemp("unbroken") / "c.lance"
    collection = Collection.create(path, model, window_seconds=1.0)
    collection.index(many_files)
    return collection


def start_indexing(process: ForkedProcess) -> None:
    """Wait until the process has loaded the model, and let it index."""
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.slow
def test_the_next_run_completes_a_killed_one(
    tmp_path: Path,
    many_files: Path,
    unbroken: Collection,
    checkpoint: Path,
) -> None:
    path = tmp_path / "killed.lance"
    random = np.random.default_rng(0)
    with ForkedProcess(INDEXING_SCRIPT, path, many_files, checkpoint) as process:
        start_indexing(process)
        for _ in range(9):
            assert process.stdout.readline().strip().isdigit()
        time.sleep(random.uniform(0, 0.05))  # within decoding, computing, or writing
        process.kill()
        assert process.finish() == (-signal.SIGKILL, ANY, ANY)
    broken = Collection.open(path, unbroken.model)
    assert 0 < len(broken) < len(unbroken)
    assert broken.index(many_files).unchanged > 0
    assert vectors_by_window(broken) == vectors_by_window(unbroken)
    assert broken.verify(sample=5).problems == ()


@pytest.mark.slow
def test_two_processes_write_each_row_once(
    tmp_path: Path,
    many_files: Path,
    unbroken: Collection,
    checkpoint: Path,
) -> None:
    path = tmp_path / "both.lance"
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ForkedProcess(INDEXING_SCRIPT, path, many_files, checkpoint))
            for _ in range(2)
        ]
        for process in processes:
            start_indexing(process)
        for process in processes:
            status, output, errors = process.finish()
            assert status == 0, errors
            assert output.endswith("done\n")
    assert vectors_by_window(Collection.open(path)) == vectors_by_window(unbroken)

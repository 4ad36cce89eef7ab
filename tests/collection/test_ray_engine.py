"""Indexing on a Ray cluster: the table of one process, whatever ends meanwhile.

One cluster of three machines with a CPU each, of which the last test ends one.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import fsspec
import psutil
import pytest

import qwen_audio as qa
from collection_helpers import write_recording
from forked import ForkedProcess
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.encoding import EncodingSettings, PendingSource
from qwen_audio.collection.engines import ray_pool
from qwen_audio.collection.engines.ray import _blocks
from qwen_audio.collection.engines.ray_cluster import WorkerResources, check_workers, import_ray
from qwen_audio.collection.engines.ray_worker import EncodingWorker
from qwen_audio.collection.progress import IndexProgress

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Of Ray's own connections and files.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:lancedb fork support:RuntimeWarning"),
]

DRIVER_SCRIPT = """
import sys
import qwen_audio as qa
from qwen_audio.collection import writer
writer._ROWS_PER_COMMIT = 4
path, folder, checkpoint, address, workers = sys.argv[1:]
model = qa.load(checkpoint, dtype="float32")
try:
    collection = qa.Collection.create(path, model, window_seconds=1.0)
except qa.CollectionError:
    collection = qa.Collection.open(path, model)
collection.index(
    folder,
    engine="ray",
    address=address,
    workers=int(workers),
    on_progress=lambda progress: print(progress.encoded, flush=True),
)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three machines on this one; this process is connected to them."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
    options: dict[str, Any] = {
        "num_cpus": 1,
        "object_store_memory": 80_000_000,
        "include_dashboard": False,
    }
    started = Cluster(initialize_head=True, head_node_args={**options, "_system_config": checks})
    for _ in range(2):
        started.add_node(**options)
    ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 recordings of 0.3, 1.3 and 2.3 s, and one that can't be decoded."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(24):
        write_recording(folder / f"{number:02}.wav", 0.3 + number % 3, number)
    (folder / "bad.wav").write_bytes(b"not audio")
    return folder


@pytest.fixture(scope="module")
def expected(
    recordings: Path, model: qa.AudioModel, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What a collection of them holds."""
    path = tmp_path_factory.mktemp("expected") / "c.lance"
    collection = Collection.create(path, model, window_seconds=1.0)
    collection.index(recordings)
    return content(collection)


def content(collection: Collection) -> tuple[Any, ...]:
    """All that a collection holds, but for the times of writing."""
    order = [("source", "ascending"), ("window", "ascending")]
    table = collection.table.to_arrow().drop_columns(["indexed_at"]).sort_by(order)
    failures = [
        {name: value for name, value in row.items() if name != "failed_at"}
        for row in collection.failures()
    ]
    return table.schema, table.to_pylist(), failures


def create(path: Path, model: qa.AudioModel) -> Collection:
    """An empty collection with windows of a second."""
    return Collection.create(path, model, window_seconds=1.0)


def worker_processes() -> list[psutil.Process]:
    """The processes of all workers on this machine."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # one that has just ended
            if "ray::EncodingWorker" in "".join(process.cmdline()):
                processes.append(process)
    return processes


def once(action: Callable[[], None], after_encoded: int = 1) -> Callable[[IndexProgress], None]:
    """An `on_progress` that does something when so many recordings are encoded."""
    done: list[int] = []

    def report(progress: IndexProgress) -> None:
        if progress.encoded >= after_encoded and not done:
            done.append(progress.encoded)
            action()

    return report


def test_the_table_is_that_of_one_process(
    cluster: Any, tmp_path: Path, recordings: Path, model: qa.AudioModel
) -> None:
    rows = [{"source": str(path), "mood": path.stem} for path in sorted(recordings.iterdir())]
    tables = []
    for engine, workers in ((None, None), ("ray", 2)):
        collection = create(tmp_path / f"{engine}.lance", model)
        collection.index([{**row, "mood": "old"} for row in rows[:4]])
        summary = collection.index(rows, engine=engine, workers=workers)
        assert (summary.added, summary.updated, summary.unchanged) == (20, 4, 0)
        assert list(summary.failures) == [str(recordings / "bad.wav")]
        tables.append(content(collection))
    assert tables[0] == tables[1]


def test_an_interrupted_run_and_a_worker_that_is_killed(
    cluster: Any, tmp_path: Path, recordings: Path, model: qa.AudioModel, expected: Any
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    killed: list[int] = []

    def kill() -> None:
        for process in worker_processes()[:1]:
            killed.append(process.pid)
            process.kill()

    collection = create(tmp_path / "c.lance", model)
    with pytest.raises(KeyboardInterrupt):
        collection.index(recordings, engine="ray", workers=1, on_progress=once(interrupt))
    stored = {row["source"] for row in collection.table.to_arrow().to_pylist()}
    assert 0 < len(stored) < 12
    deadline = time.monotonic() + 20
    while worker_processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert worker_processes() == []

    summary = collection.index(recordings, engine="ray", workers=2, on_progress=once(kill))
    assert killed
    assert (summary.added, summary.unchanged) == (24 - len(stored), len(stored))
    assert content(collection) == expected


def test_a_driver_that_is_killed_and_run_again(
    cluster: Any,
    tmp_path: Path,
    recordings: Path,
    checkpoint: Path,
    model: qa.AudioModel,
    expected: Any,
) -> None:
    path = tmp_path / "c.lance"
    with ForkedProcess(DRIVER_SCRIPT, path, recordings, checkpoint, cluster.address, "1") as driver:
        while int(driver.stdout.readline()) < 9:
            pass
        driver.kill()
        assert driver.finish() == (-signal.SIGKILL, ANY, ANY)
    collection = Collection.open(path, model)
    stored = {row["source"] for row in collection.table.to_arrow().to_pylist()}
    assert 0 < len(stored) < 24
    summary = collection.index(recordings, engine="ray", workers=2)
    assert (summary.added, summary.unchanged) == (24 - len(stored), len(stored))
    assert content(collection) == expected


def test_two_drivers_at_once(
    cluster: Any, tmp_path: Path, recordings: Path, checkpoint: Path, expected: Any
) -> None:
    path = tmp_path / "c.lance"
    arguments = (path, recordings, checkpoint, cluster.address, "1")
    with ExitStack() as stack:
        drivers = [stack.enter_context(ForkedProcess(DRIVER_SCRIPT, *arguments)) for _ in range(2)]
        for driver in drivers:
            status, output, errors = driver.finish()
            assert (status, output[-5:]) == (0, "done\n"), errors
    assert content(Collection.open(path)) == expected


def test_a_recording_that_ends_its_workers(
    cluster: Any, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(EncodingWorker):  # which is sent by value, and needs no model
        def open(self, sample: Any) -> tuple[str, None]:
            return "", None

        def encode(self, block: Any) -> Any:
            if any("fatal" in item.source.uri for item in block):
                os._exit(1)
            return [qa.AudioError(item.source.uri) for item in block]

    monkeypatch.setattr(ray_pool, "EncodingWorker", Fragile)
    ray = import_ray()
    names = [*map(str, range(5)), "fatal", *map(str, range(6, 12))]
    items = [PendingSource(Source(name), SourceVersion(1, "")) for name in names]
    loader: Any = None
    settings: Any = EncodingSettings(model.spec(), None, False, True)
    pool = ray_pool.WorkerPool(ray, WorkerResources(1, 0.0), loader, settings)
    try:
        pool.open(2, [])
        results = list(pool.encode([items[:4], items[4:8], items[8:]]))
    finally:
        pool.end()
    assert sorted(item.source.uri for item, _ in results) == sorted(names)
    for item, error in results:
        if item.source.uri == "fatal":
            assert "3 workers have ended" in str(error)
        else:
            assert str(error) == item.source.uri


def test_what_is_wrong_is_said_before_work_begins(
    cluster: Any,
    tmp_path: Path,
    recordings: Path,
    checkpoint: Path,
    model: qa.AudioModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collection = create(tmp_path / "c.lance", model)
    options: dict[str, Any] = {"engine": "ray", "workers": 1}
    with pytest.raises(qa.OptionError, match=r"^9 workers of 1 CPU each: .* 3 CPUs on 3 machines"):
        collection.index(recordings, engine="ray", workers=9)
    with pytest.raises(qa.OptionError, match="room for 0 such workers"):  # 2 CPUs on no machine
        collection.index(recordings, cpus_per_worker=2, **options)
    with pytest.raises(qa.OptionError, match="this process is connected to the Ray cluster at"):
        collection.index(recordings, address="10.0.0.1:6379", **options)

    fsspec.filesystem("memory").pipe("/music/a.wav", (recordings / "00.wav").read_bytes())
    with pytest.raises(qa.OptionError, match=r"worker on .* doesn't see memory:///music/a.wav"):
        collection.index("memory://music/a.wav", **options)

    changed = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, changed)
    other = create(tmp_path / "other.lance", qa.load(changed, dtype="float32"))
    config = changed / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(qa.OptionError, match=r"worker on .* of another embedding spec: revision"):
        other.index(recordings, **options)

    monkeypatch.setattr(qa, "__version__", "99.0")
    with pytest.raises(qa.OptionError, match=r"has qwen-audio-playground 0\.\S+ and this .* 99\.0"):
        collection.index(recordings, **options)
    assert (len(collection), collection.failures()) == (0, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "auto"}, "address='auto' is an option of engine='ray'"),
        ({"engine": "spark"}, "engine='spark': use 'local' or 'ray'"),
        ({"engine": "ray", "workers": 0}, "workers=0: use a whole number"),
        ({"engine": "ray", "gpus_per_worker": 1.5}, "gpus_per_worker=1.5: use a part of one GPU"),
    ],
)
def test_options_are_checked_first(
    tmp_path: Path, model: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    collection = create(tmp_path / "c.lance", model)
    with pytest.raises(qa.OptionError, match=message):
        collection.index(tmp_path / "none", **options)


def test_blocks_are_bounded_by_recordings_and_bytes() -> None:
    def sizes(*megabytes: int, workers: int = 1) -> list[int]:
        items = [PendingSource(Source("a"), SourceVersion(size << 20, "")) for size in megabytes]
        return [len(block) for block in _blocks(items, workers)]

    assert sizes(*[0] * 20) == [3] * 6 + [2]  # eight or fewer of each worker
    assert sizes(*[0] * 20, workers=4) == [1] * 20
    assert sizes(*[0] * 1000) == [64] * 15 + [40]
    assert sizes(100, *[15] * 20) == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]


def test_room_for_workers_is_counted_by_machine() -> None:
    assert WorkerResources(2, 0.0).room({"CPU": 5}) == 2
    assert WorkerResources(1, 0.3).room({"CPU": 9, "GPU": 2}) == 6  # three on each
    assert WorkerResources(1, 2.0).room({"CPU": 9, "GPU": 5}) == 2


def test_a_machine_that_is_lost(
    cluster: Any, tmp_path: Path, recordings: Path, model: qa.AudioModel, expected: Any
) -> None:
    node = cluster.list_all_nodes()[-1]
    collection = create(tmp_path / "c.lance", model)
    summary = collection.index(
        recordings,
        engine="ray",
        workers=3,
        on_progress=once(lambda: cluster.remove_node(node, allow_graceful=False)),
    )
    assert (summary.added, len(summary.failures)) == (24, 1)
    assert content(collection) == expected
    assert check_workers(import_ray(), None, WorkerResources(1, 0.0)) == 2

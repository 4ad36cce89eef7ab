"""Single tensors from a hub by byte ranges: huggingface_hub's own client, a hub on loopback.

Assertions about downloads count the bytes that the server sent.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import close_session, constants
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]
from safetensors import safe_open
from safetensors.torch import save_file

import qwen_audio.weights.byte_ranges
import qwen_audio.weights.download
import qwen_audio.weights.hub
import qwen_audio.weights.remote_file
from hub_server import HEADER_REQUEST_BYTES, Hub, serve, use_hub
from qwen_audio.errors import CheckpointError
from qwen_audio.weights.byte_ranges import ByteRange, row_blocks, split_into_ranges
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.safetensors_file import TensorInfo, read_header, read_tensors

MODEL = "owner/Ranged-Audio"
FIRST, SECOND = "model-1.safetensors", "model-2.safetensors"
EMBEDDINGS = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files with many layers, large enough that the size of headers is negligible."""
    folder = tmp_path_factory.mktemp("ranged") / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    generator = torch.Generator().manual_seed(0)

    def random_tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(torch.bfloat16)

    encoder = {
        "audio_tower.layer_norm.weight": random_tensor(256),
        "audio_tower.conv1.weight": random_tensor(256, 3),
    }
    for k in range(12):
        for module in ("fc1", "fc2", "self_attn.k_proj", "self_attn.q_proj"):
            encoder[f"audio_tower.layers.{k}.{module}.weight"] = random_tensor(256, 256)
        encoder[f"audio_tower.layers.{k}.fc1.bias"] = random_tensor(256)
    save_file(encoder, folder / FIRST)
    lm = {f"language_model.model.layers.{k}.mlp.weight": random_tensor(256, 256) for k in range(4)}
    save_file(lm | {EMBEDDINGS: random_tensor(16000, 256)}, folder / SECOND)
    return folder


@pytest.fixture
def folder(shared_folder: Path, tmp_path: Path) -> Path:
    """The hub's files, which a test may change."""
    return Path(shutil.copytree(shared_folder, tmp_path / "model"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        hub.repos[MODEL] = folder
        use_hub(hub, tmp_path, monkeypatch)
        monkeypatch.setattr(qwen_audio.weights.download, "_RETRY_SECONDS", 0.001)
        yield hub
    close_session()


def open_model() -> HubFiles:
    return HubFiles.resolve(MODEL, None)


def tensor_names(folder: Path, prefix: str, file: str = FIRST) -> list[str]:
    return [name for name in read_header(folder / file) if name.startswith(prefix)]


def byte_count(folder: Path, wanted: list[str], file: str = FIRST) -> int:
    header = read_header(folder / file)
    return sum(header[name].bytes for name in wanted)


def equals_hub(model: HubFiles, folder: Path, wanted: list[str], file: str = FIRST) -> bool:
    """Whether the cached tensors equal the hub's, bit for bit."""
    cached = model.cached_tensors(file)
    tensors = read_tensors({name: cached[name] for name in wanted})
    with safe_open(folder / file, "pt") as opened:
        return all(torch.equal(tensors[name], opened.get_tensor(name)) for name in wanted)


def fail_on_download(done: int, total: int) -> None:
    pytest.fail(f"{total} bytes would be downloaded")


def cached_files(tmp_path: Path, pattern: str) -> list[Path]:
    return sorted((tmp_path / "assets").rglob(pattern))


def error_message(call: Callable[[], Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# Bytes downloaded.


def test_exactly_the_requested_tensors_are_downloaded(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.1")  # 1, 10 and 11
    model.download({FIRST: wanted})
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES + byte_count(folder, wanted)
    assert hub.bytes_sent[SECOND] == 0
    assert equals_hub(model, folder, wanted)
    assert model.cached_tensors(FIRST).keys() == set(wanted)


def test_downloading_most_of_a_file_has_little_overhead(hub: Hub, folder: Path) -> None:
    """At most 2 % beyond the tensors; with a real file's size that includes the header."""
    wanted = [name for name in tensor_names(folder, "audio_tower.") if ".layers.11." not in name]
    open_model().download({FIRST: wanted})
    assert hub.bytes_sent[FIRST] - HEADER_REQUEST_BYTES <= 1.02 * byte_count(folder, wanted)
    header_bytes = qwen_audio.weights.remote_file._HEADER_REQUEST_BYTES
    assert header_bytes < 0.001 * 1_270_000_000  # the 7B model's audio encoder in bfloat16


def test_contiguous_tensors_are_one_request(hub: Hub, folder: Path) -> None:
    open_model().download({FIRST: tensor_names(folder, "audio_tower.layers.3.")})
    assert len(hub.ranges) == 3  # config.json, header, layer


def test_a_second_run_downloads_nothing(hub: Hub, folder: Path) -> None:
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.3.")}
    open_model().download(wanted)
    hub.clear_log()
    again = open_model()
    assert again.missing_bytes(wanted) == 0
    again.download(wanted, fail_on_download)
    assert hub.fetched() == []
    assert equals_hub(again, folder, wanted[FIRST])


def test_only_missing_tensors_are_downloaded(hub: Hub, folder: Path) -> None:
    model = open_model()
    model.download({FIRST: tensor_names(folder, "audio_tower.layers.3.")})
    hub.clear_log()
    all_layers = tensor_names(folder, "audio_tower.layers.")
    rest = [name for name in all_layers if ".layers.3." not in name]
    assert model.missing_bytes({FIRST: all_layers}) == byte_count(folder, rest)
    model.download({FIRST: all_layers})
    assert hub.bytes_sent[FIRST] == byte_count(folder, rest)
    assert equals_hub(model, folder, all_layers)


def test_missing_bytes_are_those_that_are_downloaded(hub: Hub, folder: Path) -> None:
    model = open_model()
    wanted = {
        FIRST: tensor_names(folder, "audio_tower.layers.4."),
        SECOND: tensor_names(folder, "", SECOND),
    }
    missing = model.missing_bytes(wanted)
    assert sum(hub.bytes_sent[file] for file in wanted) == 2 * HEADER_REQUEST_BYTES
    hub.clear_log()
    model.download(wanted)
    assert missing == sum(hub.bytes_sent[file] for file in wanted)
    assert model.missing_bytes(wanted) == 0


def test_a_long_header_takes_two_requests(hub: Hub, folder: Path) -> None:
    many = {f"audio_tower.layers.{k}.bias": torch.full((4,), float(k)) for k in range(2000)}
    save_file(many, folder / FIRST)
    model = open_model()
    assert model.header(FIRST) == read_header(folder / FIRST)
    assert len(hub.ranges) == 3
    first = min(info.start for info in read_header(folder / FIRST).values())
    assert hub.bytes_sent[FIRST] == first > HEADER_REQUEST_BYTES
    model.download({FIRST: ["audio_tower.layers.7.bias"]})
    assert equals_hub(model, folder, ["audio_tower.layers.7.bias"])


def test_headers_are_cached(hub: Hub, folder: Path) -> None:
    open_model().header(FIRST)
    hub.clear_log()
    assert open_model().header(FIRST) == read_header(folder / FIRST)
    assert hub.fetched() == []


def test_a_missing_file_may_be_optional(hub: Hub) -> None:
    assert open_model().header("model.safetensors", optional=True) is None
    assert "Entry Not Found" in error_message(lambda: open_model().header("model.safetensors"))


def test_cached_ranges_are_safetensors_files(hub: Hub, folder: Path, tmp_path: Path) -> None:
    open_model().download({FIRST: tensor_names(folder, "audio_tower.layers.2.")})
    (path,) = cached_files(tmp_path, "*.safetensors/*.safetensors")
    with safe_open(path, "pt") as opened, safe_open(folder / FIRST, "pt") as whole:
        assert set(opened.keys()) == set(tensor_names(folder, "audio_tower.layers.2."))
        for name in opened.keys():  # noqa: SIM118 (not a dict)
            assert torch.equal(opened.get_tensor(name), whole.get_tensor(name))
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_an_unknown_tensor(hub: Hub) -> None:
    message = error_message(lambda: open_model().download({FIRST: ["audio_tower.conv9.weight"]}))
    assert f"{FIRST} has no tensor audio_tower.conv9.weight" in message


# Whole files.


def test_a_file_needed_completely_is_downloaded_whole(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), {FIRST: tensor_names(folder, "")}
    assert model.missing_bytes(wanted) == (folder / FIRST).stat().st_size
    model.download(wanted)
    assert (model.folder / FIRST).read_bytes() == (folder / FIRST).read_bytes()
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES + (folder / FIRST).stat().st_size
    assert equals_hub(model, folder, wanted[FIRST])
    hub.clear_log()
    assert model.header(FIRST) == read_header(folder / FIRST)
    assert open_model().missing_bytes(wanted) == 0
    assert hub.fetched() == []


def test_a_partly_cached_file_is_completed_by_ranges(hub: Hub, folder: Path) -> None:
    model = open_model()
    model.download({FIRST: tensor_names(folder, "audio_tower.layers.0.")})
    model.download({FIRST: tensor_names(folder, "")})
    assert not (model.folder / FIRST).exists()
    size = byte_count(folder, tensor_names(folder, ""))
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES + size


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": ""},
        {"Content-Range": "bytes 5-9/10"},
        {"Content-Range": "bytes 0-99/*"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_responses_without_the_requested_range(
    headers: dict[str, str], hub: Hub, folder: Path
) -> None:
    hub.header_overrides = headers
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.download({FIRST: wanted})
    assert equals_hub(model, folder, wanted)
    assert (model.folder / FIRST).is_file()


def test_a_server_without_ranges(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 20)  # it reports once a chunk
    hub.sends_ranges, hub.pause_seconds = False, 0.01
    model = open_model()
    wanted = {SECOND: tensor_names(folder, "language_model.model.layers.0.", SECOND)}
    assert model.header(SECOND) is None
    whole = (folder / SECOND).stat().st_size
    assert hub.bytes_sent[SECOND] < whole / 2  # the connection was closed
    assert model.missing_bytes(wanted) == whole
    hub.pause_seconds = 0.0
    reports: list[tuple[int, int]] = []
    model.download(wanted, lambda done, total: reports.append((done, total)))
    assert reports[-1] == (whole, whole)
    assert len(reports) > 5
    assert equals_hub(model, folder, wanted[SECOND], SECOND)
    assert model.header(SECOND) == read_header(folder / SECOND)
    assert model.cached_tensors(SECOND).keys() == read_header(folder / SECOND).keys()


def test_a_server_that_stops_sending_ranges(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.")}
    model.header(FIRST)
    hub.pause_seconds = 0.002
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        hub.sends_ranges = False
        reports.append((done, total))

    model.download(wanted, report)
    assert equals_hub(model, folder, wanted[FIRST])
    whole = (folder / FIRST).stat().st_size
    assert (model.folder / FIRST).stat().st_size == whole
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1] > whole


# Progress.


def test_progress(hub: Hub, folder: Path) -> None:
    model = open_model()
    wanted = {
        FIRST: tensor_names(folder, "audio_tower.layers."),
        SECOND: tensor_names(folder, "", SECOND),
    }
    total, reports = model.missing_bytes(wanted), [(0, 0)]
    caller_ids: list[int] = []

    def report(done: int, reported_total: int) -> None:
        caller_ids.append(threading.get_ident())
        time.sleep(0.0005)  # so that concurrent calls would overlap
        assert caller_ids[-1] == threading.get_ident()
        assert reported_total == total
        reports.append((done, reported_total))

    model.download(wanted, report)
    steps = [done for done, _ in reports]
    assert steps == sorted(set(steps))
    assert steps[-1] == total
    assert len(steps) > 20
    assert len(set(caller_ids)) > 1  # downloads were concurrent


def test_whole_files_show_no_progress_bar(
    hub: Hub, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # the client then shows bars even without a terminal
    model = open_model()
    capfd.readouterr()
    model.download({FIRST: tensor_names(folder, "")}, lambda done, total: None)
    assert capfd.readouterr().err == ""


# Interrupted downloads.


def test_a_truncated_body_is_resumed(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.clear_log()
    hub.truncate_once[FIRST] = 200_000
    model.download({FIRST: wanted})
    assert hub.bytes_sent[FIRST] == byte_count(folder, wanted)
    assert len(hub.ranges) == 2
    assert equals_hub(model, folder, wanted)


def test_transient_failures_are_retried(hub: Hub, folder: Path) -> None:
    hub.transient_failures[FIRST] = 2
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.download({FIRST: wanted})
    assert equals_hub(model, folder, wanted)


def test_a_body_that_is_truncated_every_time(hub: Hub, folder: Path, tmp_path: Path) -> None:
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.truncate[FIRST] = 100_000
    message = error_message(lambda: model.download({FIRST: wanted}))
    size = byte_count(folder, wanted)
    assert f"of {FIRST} stopped downloading at 300000 of {size} bytes" in message
    assert message.endswith("try again, the download resumes there")
    assert model.cached_tensors(FIRST) == {}
    assert cached_files(tmp_path, "[0-9]*.safetensors") == []

    hub.truncate.clear()
    hub.clear_log()
    rest = size - 300_000
    again = open_model()
    assert again.missing_bytes({FIRST: wanted}) == rest
    reports: list[tuple[int, int]] = []
    again.download({FIRST: wanted}, lambda done, total: reports.append((done, total)))
    assert reports[-1] == (rest, rest)
    assert hub.bytes_sent[FIRST] == rest
    assert equals_hub(again, folder, wanted)
    assert cached_files(tmp_path, "*.incomplete") == []


def test_responses_that_are_too_long(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.extra_bytes = 100
    model.download({FIRST: wanted})
    assert equals_hub(model, folder, wanted)


def test_responses_that_are_too_short(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.extra_bytes = -100
    message = error_message(lambda: model.download({FIRST: wanted}))
    size = byte_count(folder, wanted)
    assert f"downloading at {size - 100} of {size} bytes (the response is shorter" in message


def test_attempts_with_progress_do_not_count_as_failures(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen_audio.weights.download, "_PROGRESS_BYTES", 50_000)
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.truncate[FIRST] = 60_000
    model.download({FIRST: wanted})
    assert len(hub.ranges) > 8
    assert equals_hub(model, folder, wanted)


@pytest.mark.parametrize("content", [b"", b"\x10", b"another header" * 200, None])
def test_invalid_incomplete_files(
    content: bytes | None, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    """Truncated in its header, with another header, and too long (None)."""
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.download({FIRST: wanted})
    (path,) = cached_files(tmp_path, "*.safetensors/*.safetensors")
    whole = path.read_bytes()
    if content == b"\x10":
        content = whole[:1]
    path.with_suffix(".incomplete").write_bytes(whole + b"more" if content is None else content)
    path.unlink()
    assert model.missing_bytes({FIRST: wanted}) == byte_count(folder, wanted)
    model.download({FIRST: wanted})
    assert path.read_bytes() == whole


def test_a_damaged_cached_range_is_downloaded_again(hub: Hub, folder: Path, tmp_path: Path) -> None:
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.download({FIRST: wanted})
    (path,) = cached_files(tmp_path, "*.safetensors/*.safetensors")
    os.truncate(path, 5000)
    again = open_model()
    assert again.cached_tensors(FIRST) == {}
    again.download({FIRST: wanted})
    assert equals_hub(again, folder, wanted)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"etag": "x", "size": 9, "header": "{}"}'])
def test_a_damaged_cached_header_is_downloaded_again(
    text: str, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    open_model().header(FIRST)
    (file,) = cached_files(tmp_path, "header.json")
    file.write_text(text)
    assert open_model().header(FIRST) == read_header(folder / FIRST)


def test_an_interrupted_download_leaves_no_incomplete_range_as_complete(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.")}
    model.header(FIRST)
    hub.pause_seconds = 0.005

    def interrupt(done: int, total: int) -> None:
        if done > 400_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.download(wanted, interrupt)
    for path in cached_files(tmp_path, "*.safetensors/*.safetensors"):
        read_header(path)
    assert cached_files(tmp_path, "*.incomplete") != []
    hub.pause_seconds = 0.0
    model.download(wanted)
    assert equals_hub(model, folder, wanted[FIRST])
    assert cached_files(tmp_path, "*.incomplete") == []


@pytest.mark.slow
def test_an_interruption_ends_retries(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wanted = open_model(), {FIRST: ["audio_tower.conv1.weight"], SECOND: [EMBEDDINGS]}
    model.missing_bytes(wanted)
    hub.clear_log()
    hub.error_status[FIRST] = (503, "")
    monkeypatch.setattr(qwen_audio.weights.download, "_RETRY_SECONDS", 0.5)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.download(wanted, interrupt)
    assert hub.fetched().count(FIRST) <= 1


@pytest.mark.slow
def test_an_interruption_does_not_wait_for_another_process(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    model = open_model()
    wanted = {FIRST: [*tensor_names(folder, "audio_tower.layers.3."), "audio_tower.conv1.weight"]}
    header = read_header(folder / FIRST)
    (locked, _) = split_into_ranges(
        {name: header[name] for name in header if name in wanted[FIRST]}
    )
    model.header(FIRST)
    (header_file,) = cached_files(tmp_path, "header.json")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with (
        WeakFileLock(header_file.parent / f"{locked.file_stem}.lock"),
        pytest.raises(KeyboardInterrupt),
    ):
        model.download(wanted, interrupt)


# Concurrent downloads.

fork = multiprocessing.get_context("fork")


def download_in_a_process(wanted: dict[str, list[str]]) -> None:
    open_model().download(wanted)


@pytest.mark.slow
def test_two_concurrent_processes_download_each_byte_once(hub: Hub, folder: Path) -> None:
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.")}
    hub.pause_seconds = 0.005
    processes = [fork.Process(target=download_in_a_process, args=(wanted,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES + byte_count(folder, wanted[FIRST])
    hub.clear_log()
    model = open_model()
    model.download(wanted)
    assert hub.fetched() == []
    assert equals_hub(model, folder, wanted[FIRST])


def test_two_concurrent_threads_download_each_byte_once(hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.")}
    reports: list[list[tuple[int, int]]] = [[], []]

    def download(own_reports: list[tuple[int, int]]) -> None:
        model.download(wanted, lambda done, total: own_reports.append((done, total)))

    hub.pause_seconds = 0.002
    other = threading.Thread(target=download, args=(reports[0],))
    other.start()
    download(reports[1])
    other.join()
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES + byte_count(folder, wanted[FIRST])
    assert all(done == total for (*_, (done, total)) in reports)  # whichever downloaded it
    assert equals_hub(model, folder, wanted[FIRST])


@pytest.mark.slow
def test_without_working_locks_only_extra_bytes_are_downloaded(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network file systems."""
    monkeypatch.setattr("huggingface_hub.utils.WeakFileLock", lambda *_, **__: nullcontext())
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.")}
    hub.pause_seconds = 0.002
    models = [open_model() for _ in range(3)]
    others = [threading.Thread(target=model.download, args=(wanted,)) for model in models[1:]]
    for other in others:
        other.start()
    models[0].download(wanted)
    for other in others:
        other.join()
    size = byte_count(folder, wanted[FIRST])
    assert hub.bytes_sent[FIRST] > HEADER_REQUEST_BYTES + size  # they did overlap
    assert equals_hub(models[0], folder, wanted[FIRST])
    assert cached_files(tmp_path, "*.incomplete") == []


@pytest.mark.slow
def test_a_killed_process_leaves_no_incomplete_range_as_complete(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.")}
    hub.pause_seconds = 0.02
    process = fork.Process(target=download_in_a_process, args=(wanted,))
    process.start()
    while hub.bytes_sent[FIRST] < HEADER_REQUEST_BYTES + 600_000:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    hub.pause_seconds = 0.0
    time.sleep(0.1)  # the server notices
    assert cached_files(tmp_path, "*.incomplete") != []
    model = open_model()
    assert equals_hub(model, folder, list(model.cached_tensors(FIRST)))
    hub.clear_log()
    model.download(wanted)
    assert equals_hub(model, folder, wanted[FIRST])
    assert hub.bytes_sent[FIRST] < byte_count(folder, wanted[FIRST]) - 200_000  # only the rest


# Offline.


def test_cached_tensors_are_read_offline(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.3.")}
    open_model().download(wanted)
    hub.clear_log()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = open_model()
    assert model.header(FIRST) == read_header(folder / FIRST)
    model.download(wanted)
    assert equals_hub(model, folder, wanted[FIRST])
    message = error_message(
        lambda: model.download({FIRST: tensor_names(folder, "audio_tower.layers.4.")})
    )
    assert f"audio_tower.layers.4.fc1.bias … of {FIRST} is not in the local cache" in message
    assert "HF_HUB_OFFLINE" in message
    message = error_message(lambda: model.download({SECOND: [EMBEDDINGS]}))
    assert message.startswith(f"{MODEL}: {SECOND} is not in the local cache and the hub can't")
    assert "HF_HUB_OFFLINE" in error_message(lambda: model.missing_bytes({SECOND: [EMBEDDINGS]}))
    assert hub.requests == []


# Files that change on the hub.


@pytest.mark.parametrize("storage", [None, ""])
def test_another_etag(storage: str | None, hub: Hub, folder: Path) -> None:
    hub.storage_url = storage
    model = open_model()
    model.download({FIRST: tensor_names(folder, "audio_tower.layers.3.")})
    hub.etag_overrides[FIRST] = "another"
    for other in (model, open_model()):
        message = error_message(
            lambda: other.download({FIRST: tensor_names(folder, "audio_tower.layers.4.")})
        )
        assert f"{MODEL}: {FIRST} is not the file first seen at this commit" in message
        assert "delete " in message


def test_a_weak_etag_equals_the_strong_one(hub: Hub, folder: Path) -> None:
    """Proxies may make ETags weak."""
    hub.etag_overrides[FIRST] = "one"
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.header_overrides = {"ETag": 'W/"one"'}
    model.download({FIRST: wanted})
    assert equals_hub(model, folder, wanted)


@pytest.mark.parametrize("more", [4, -4_000_000])
def test_another_size(more: int, hub: Hub, folder: Path) -> None:
    hub.etag_overrides[FIRST] = "the same"
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.4.")}
    model.header(FIRST)
    os.truncate(folder / FIRST, (folder / FIRST).stat().st_size + more)
    message = error_message(lambda: model.download(wanted))
    assert "is not the file first seen at this commit" in message


def test_a_file_that_changes_during_a_download(hub: Hub, folder: Path) -> None:
    model = open_model()
    model.header(FIRST)
    hub.truncate_once[FIRST] = 100_000
    hub.pause_seconds = 0.01

    def change(done: int, total: int) -> None:
        hub.etag_overrides[FIRST] = "another"

    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.4.")}
    assert "first seen" in error_message(lambda: model.download(wanted, change))
    assert model.cached_tensors(FIRST) == {}


# Redirects to storage.


@pytest.mark.parametrize("redirect", ["relative", "other host"])
def test_storage_on_another_host_gets_no_token(
    redirect: str, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is sent to the hub only."""
    token = "hf_" + "a" * 34
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", token)
    hub.storage_url = "" if redirect == "relative" else hub.url.replace("127.0.0.1", "localhost")
    model, wanted = open_model(), tensor_names(folder, "audio_tower.layers.3.")
    model.download({FIRST: wanted})
    assert equals_hub(model, folder, wanted)
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES + byte_count(folder, wanted)
    hosts = {host.split(":")[0] for host, _, _ in hub.authorizations}
    assert hosts == ({"127.0.0.1", "localhost"} if redirect == "other host" else {"127.0.0.1"})
    for host, _, sent in hub.authorizations:
        assert sent == ("" if host.startswith("localhost") else f"Bearer {token}")


# Errors of the hub.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "GatedRepo", "Cannot access gated repo"),
        (403, "GatedRepo", "Cannot access gated repo"),
        (403, "", "403 Forbidden"),
        (404, "EntryNotFound", "Entry Not Found"),
        (503, "", "503"),
        (429, "", "429"),
    ],
)
def test_http_errors(status: int, code: str, reason: str, hub: Hub, folder: Path) -> None:
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.3.")}
    hub.error_status[FIRST] = (status, code)
    message = error_message(lambda: model.download(wanted))
    assert message.startswith(f"{MODEL}: {FIRST} can't be fetched from the hub ")
    assert reason in message
    assert ("access token" in message) == (status < 429)
    assert hub.fetched().count(FIRST) == (3 if status in (429, 503) else 1)

    hub.error_status.clear()
    model.header(FIRST)
    hub.error_status[FIRST] = (status, code)
    message = error_message(lambda: model.download(wanted))
    assert reason in message
    assert f"audio_tower.layers.3.fc1.bias … of {FIRST} can't be fetched" in message


def test_an_unreachable_hub_is_reported_soon(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.3.")}
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for call in (
        lambda: model.download(wanted),
        lambda: model.fetch_file("tokenizer.json"),
        lambda: HubFiles.resolve("owner/another", None),
    ):
        started = time.monotonic()
        assert "the hub can't be reached" in error_message(call)
        assert time.monotonic() - started < 4


def test_a_hub_that_is_down_is_reported_soon(hub: Hub) -> None:
    hub.error_status["config.json"] = (503, "")
    started = time.monotonic()
    assert "503" in error_message(open_model)
    assert time.monotonic() - started < 4
    assert hub.requests == [("HEAD", MODEL, "config.json")] * 3


# Disk space.


def test_too_little_disk_space_is_reported_before_downloading(
    hub: Hub, folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, small_disk, monkeypatch)
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.")}
    message = error_message(lambda: open_model().download(wanted))
    assert f"{MODEL}: {byte_count(folder, wanted[FIRST])} bytes have to be downloaded" in message
    assert "free disk space" in message
    assert hub.bytes_sent[FIRST] == HEADER_REQUEST_BYTES


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount_point)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs permission to mount a file system")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


def test_a_disk_that_fills_up_during_a_download(
    hub: Hub, folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, small_disk, monkeypatch)
    model, wanted = open_model(), {FIRST: tensor_names(folder, "audio_tower.layers.0.")}
    filler = small_disk / "filler"

    def fill(done: int, total: int) -> None:
        if not filler.exists():
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(max(0, free - 100_000)))

    message = error_message(lambda: model.download(wanted, fill))
    assert "can't be stored on this machine ([Errno 28] No space left on device)" in message
    assert model.cached_tensors(FIRST) == {}
    filler.unlink()
    model.download(wanted)
    assert equals_hub(model, folder, wanted[FIRST])


def download_with_file_size_limit(wanted: dict[str, list[str]], connection: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    connection.send(error_message(lambda: open_model().download(wanted)))


def test_a_file_size_limit(hub: Hub, folder: Path, tmp_path: Path) -> None:
    wanted = {FIRST: tensor_names(folder, "audio_tower.layers.0.")}
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=download_with_file_size_limit, args=(wanted, sender))
    process.start()
    assert receiver.poll(30)
    assert "can't be stored on this machine ([Errno 27] File too large)" in receiver.recv()
    process.join()
    assert cached_files(tmp_path, "*.safetensors/*.safetensors") == []
    model = open_model()
    model.download(wanted)
    assert equals_hub(model, folder, wanted[FIRST])
    starts = [
        int(requested.removeprefix("bytes=").split("-")[0]) for _, requested in hub.ranges[2:]
    ]
    assert 250_000 < starts[1] - starts[0] < 300_000  # resumed


# Rows of a matrix.


def expected_rows(folder: Path, rows: list[int]) -> list[torch.Tensor]:
    with safe_open(folder / SECOND, "pt") as opened:
        matrix = opened.get_tensor(EMBEDDINGS)
    return [matrix[row] for row in rows]


def test_single_rows(hub: Hub, folder: Path) -> None:
    model, rows = open_model(), [15999, 17, 3, 18, 17]
    reports: list[tuple[int, int]] = []
    values = model.download_rows(
        SECOND, EMBEDDINGS, rows, lambda done, total: reports.append((done, total))
    )
    assert values.keys() == set(rows)
    assert all(map(torch.equal, [values[row] for row in rows], expected_rows(folder, rows)))
    downloaded = 3 * 16 * 512
    assert hub.bytes_sent[SECOND] == HEADER_REQUEST_BYTES + downloaded
    assert reports[-1] == (downloaded, downloaded)
    assert model.cached_tensors(SECOND) == {}

    hub.clear_log()
    again = open_model().download_rows(SECOND, EMBEDDINGS, [16, 2], fail_on_download)
    assert all(map(torch.equal, again.values(), expected_rows(folder, [2, 16])))
    assert hub.fetched() == []


def test_rows_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model()
    model.download_rows(SECOND, EMBEDDINGS, [17])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_model().download_rows(SECOND, EMBEDDINGS, [17]).keys() == {17}
    message = error_message(lambda: open_model().download_rows(SECOND, EMBEDDINGS, [99]))
    assert f"{EMBEDDINGS} of {SECOND} is not in the local cache" in message


def test_rows_of_a_cached_matrix(hub: Hub, folder: Path) -> None:
    model = open_model()
    model.download({SECOND: [EMBEDDINGS]})
    hub.clear_log()
    values = model.download_rows(SECOND, EMBEDDINGS, [5, 6000])
    assert all(map(torch.equal, values.values(), expected_rows(folder, [5, 6000])))
    assert hub.fetched() == []


def test_many_rows_download_the_whole_matrix(hub: Hub, folder: Path) -> None:
    """As every block would be a request of its own."""
    model, rows = open_model(), list(range(0, 16000, 500))
    values = model.download_rows(SECOND, EMBEDDINGS, rows)
    assert all(map(torch.equal, values.values(), expected_rows(folder, rows)))
    assert EMBEDDINGS in model.cached_tensors(SECOND)
    assert len(hub.ranges) == 3


@pytest.mark.slow
def test_many_cached_rows(hub: Hub, folder: Path) -> None:
    """Downloaded a few at a time: nothing is missing now."""
    model, rows = open_model(), list(range(0, 16000, 500))
    for first in range(0, len(rows), 4):
        model.download_rows(SECOND, EMBEDDINGS, rows[first : first + 4])
    hub.clear_log()
    values = open_model().download_rows(SECOND, EMBEDDINGS, rows)
    assert all(map(torch.equal, values.values(), expected_rows(folder, rows)))
    assert SECOND not in hub.fetched()


def test_rows_from_a_server_without_ranges(hub: Hub, folder: Path) -> None:
    model = open_model()
    model.header(SECOND)
    hub.sends_ranges = False
    for each in (model, open_model()):
        values = each.download_rows(SECOND, EMBEDDINGS, [5, 6000])
        assert all(map(torch.equal, values.values(), expected_rows(folder, [5, 6000])))


@pytest.mark.parametrize("row", [-1, 16000])
@pytest.mark.parametrize("is_cached", [False, True])
def test_rows_out_of_range(row: int, is_cached: bool, hub: Hub) -> None:
    model = open_model()
    if is_cached:
        model.download({SECOND: [EMBEDDINGS]})
    message = error_message(lambda: model.download_rows(SECOND, EMBEDDINGS, [0, row]))
    assert f"{EMBEDDINGS} has rows 0 … 15999" in message


def test_no_rows(hub: Hub) -> None:
    assert open_model().download_rows(SECOND, EMBEDDINGS, []) == {}


# Splitting into ranges.


def contiguous_tensors(*sizes: tuple[str, int]) -> dict[str, TensorInfo]:
    """Tensors of these sizes, one after another, from offset 100 on."""
    tensors, start = {}, 100
    for name, length in sizes:
        tensors[name] = TensorInfo("U8", (length,), start, start + length)
        start += length
    return tensors


def file_stems(ranges: list[ByteRange]) -> list[str]:
    return [each.file_stem for each in ranges]


def test_each_module_has_its_own_range() -> None:
    """One module alone has the same range as when all are needed."""
    tensors = contiguous_tensors(
        ("a.layers.1.fc1.bias", 10),
        ("a.layers.1.fc2.bias", 10),
        ("a.layers.10.fc1.bias", 10),
        ("a.norm.bias", 10),
        ("a.norm.weight", 10),
    )
    ranges = split_into_ranges(tensors)
    assert file_stems(ranges) == ["100-120", "120-130", "130-150"]
    layer = {name: info for name, info in tensors.items() if "layers.1." in name}
    assert split_into_ranges(layer) == ranges[:1]
    with_gap = {name: info for name, info in tensors.items() if name != "a.layers.1.fc2.bias"}
    assert file_stems(split_into_ranges(with_gap)) == ["100-110", "120-130", "130-150"]


def test_large_modules_are_split_into_several_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen_audio.weights.byte_ranges, "_MAX_RANGE_BYTES", 100)
    tensors = contiguous_tensors(
        ("l.0.a", 60), ("l.0.b", 40), ("l.0.c", 1), ("l.0.d", 500), ("l.0.e", 5)
    )
    assert file_stems(split_into_ranges(tensors)) == ["100-200", "200-201", "201-701", "701-706"]


def test_empty_tensors() -> None:
    tensors = contiguous_tensors(("l.0.a", 0), ("l.0.b", 4), ("l.0.c", 0))
    assert file_stems(split_into_ranges(tensors)) == ["100-104"]
    assert file_stems(split_into_ranges(contiguous_tensors(("l.0.a", 0)))) == ["100-100"]


def test_blocks_of_rows() -> None:
    matrix = TensorInfo("F32", (40, 2), 1000, 1320)
    blocks = row_blocks("t", matrix, [3, 39, 4, 15])
    assert file_stems(list(blocks.values())) == ["rows-1000-1128", "rows-1256-1320"]
    assert blocks.keys() == {0, 32}
    assert blocks[32].tensors["t"] == TensorInfo("F32", (8, 2), 1256, 1320)


def test_headers_of_ranges_are_safetensors_headers() -> None:
    header = ByteRange(contiguous_tensors(("a", 3)), 100, 103).header
    assert json.loads(header[8:]) == {"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}

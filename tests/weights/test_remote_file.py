"""Single tensors from a hub, by ranges: huggingface_hub's own client, a hub on loopback.

Every claim about what is fetched is a count of the bytes that crossed.
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
from hub_server import HEADER, Hub, serve, use_hub
from qwen_audio.errors import CheckpointError
from qwen_audio.weights.byte_ranges import ByteRange, cut, row_blocks
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.safetensors_file import TensorInfo, read_header, read_tensors

MODEL = "owner/Ranged-Audio"
FIRST, SECOND = "model-1.safetensors", "model-2.safetensors"
TABLE = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many layers, large enough that headers are of no account, in two files."""
    folder = tmp_path_factory.mktemp("ranged") / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(torch.bfloat16)

    ear = {"audio_tower.layer_norm.weight": noise(256), "audio_tower.conv1.weight": noise(256, 3)}
    for k in range(12):
        for part in ("fc1", "fc2", "self_attn.k_proj", "self_attn.q_proj"):
            ear[f"audio_tower.layers.{k}.{part}.weight"] = noise(256, 256)
        ear[f"audio_tower.layers.{k}.fc1.bias"] = noise(256)
    save_file(ear, folder / FIRST)
    text = {f"language_model.model.layers.{k}.mlp.weight": noise(256, 256) for k in range(4)}
    save_file(text | {TABLE: noise(16000, 256)}, folder / SECOND)
    return folder


@pytest.fixture
def folder(shared_folder: Path, tmp_path: Path) -> Path:
    """What the hub holds: a test may change it."""
    return Path(shutil.copytree(shared_folder, tmp_path / "model"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as hub:
        hub.repos[MODEL] = folder
        use_hub(hub, tmp_path, monkeypatch)
        monkeypatch.setattr(qwen_audio.weights.download, "_WAIT_SECONDS", 0.001)
        yield hub
    close_session()


def files() -> HubFiles:
    return HubFiles.resolve(MODEL, None)


def names(folder: Path, prefix: str, file: str = FIRST) -> list[str]:
    return [name for name in read_header(folder / file) if name.startswith(prefix)]


def size(folder: Path, wanted: list[str], file: str = FIRST) -> int:
    header = read_header(folder / file)
    return sum(header[name].bytes for name in wanted)


def is_equal(model: HubFiles, folder: Path, wanted: list[str], file: str = FIRST) -> bool:
    """What is held is what the hub has, to the bit."""
    held = model.held(file)
    read = read_tensors({name: held[name] for name in wanted})
    with safe_open(folder / file, "pt") as opened:
        return all(torch.equal(read[name], opened.get_tensor(name)) for name in wanted)


def nothing_comes(done: int, total: int) -> None:
    pytest.fail(f"{total} bytes were to come")


def kept(tmp_path: Path, pattern: str) -> list[Path]:
    return sorted((tmp_path / "assets").rglob(pattern))


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# What crosses.


def test_tensors_cross_once_and_nothing_else_does(hub: Hub, folder: Path) -> None:
    model, wanted = files(), names(folder, "audio_tower.layers.1")  # 1, 10 and 11
    model.bring({FIRST: wanted})
    assert hub.sent[FIRST] == HEADER + size(folder, wanted)
    assert hub.sent[SECOND] == 0
    assert is_equal(model, folder, wanted)
    assert model.held(FIRST).keys() == set(wanted)


def test_most_of_a_file_crosses_without_its_rest(hub: Hub, folder: Path) -> None:
    """The bound of the project, headers included where a file has the size of real ones."""
    wanted = [name for name in names(folder, "audio_tower.") if ".layers.11." not in name]
    files().bring({FIRST: wanted})
    assert hub.sent[FIRST] - HEADER <= 1.02 * size(folder, wanted)
    first_bytes = qwen_audio.weights.remote_file._FIRST_BYTES
    assert first_bytes < 0.001 * 1_270_000_000  # of the 7B's audio encoder in bfloat16


def test_neighbours_come_together(hub: Hub, folder: Path) -> None:
    files().bring({FIRST: names(folder, "audio_tower.layers.3.")})
    assert len(hub.ranges) == 3  # config.json, header, layer


def test_a_second_run_moves_nothing(hub: Hub, folder: Path) -> None:
    wanted = {FIRST: names(folder, "audio_tower.layers.3.")}
    files().bring(wanted)
    hub.forget()
    again = files()
    assert again.missing(wanted) == 0
    again.bring(wanted, nothing_comes)
    assert hub.fetched() == []
    assert is_equal(again, folder, wanted[FIRST])


def test_only_what_is_not_held_comes(hub: Hub, folder: Path) -> None:
    model = files()
    model.bring({FIRST: names(folder, "audio_tower.layers.3.")})
    hub.forget()
    more = names(folder, "audio_tower.layers.")
    rest = [name for name in more if ".layers.3." not in name]
    assert model.missing({FIRST: more}) == size(folder, rest)
    model.bring({FIRST: more})
    assert hub.sent[FIRST] == size(folder, rest)
    assert is_equal(model, folder, more)


def test_what_will_cross_is_known_before(hub: Hub, folder: Path) -> None:
    model = files()
    wanted = {FIRST: names(folder, "audio_tower.layers.4."), SECOND: names(folder, "", SECOND)}
    missing = model.missing(wanted)
    assert sum(hub.sent[file] for file in wanted) == 2 * HEADER
    hub.forget()
    model.bring(wanted)
    assert missing == sum(hub.sent[file] for file in wanted)
    assert model.missing(wanted) == 0


def test_a_long_header_takes_two_requests(hub: Hub, folder: Path) -> None:
    many = {f"audio_tower.layers.{k}.bias": torch.full((4,), float(k)) for k in range(2000)}
    save_file(many, folder / FIRST)
    model = files()
    assert model.header(FIRST) == read_header(folder / FIRST)
    assert len(hub.ranges) == 3
    first = min(slot.start for slot in read_header(folder / FIRST).values())
    assert hub.sent[FIRST] == first > HEADER
    model.bring({FIRST: ["audio_tower.layers.7.bias"]})
    assert is_equal(model, folder, ["audio_tower.layers.7.bias"])


def test_headers_are_kept(hub: Hub, folder: Path) -> None:
    files().header(FIRST)
    hub.forget()
    assert files().header(FIRST) == read_header(folder / FIRST)
    assert hub.fetched() == []


def test_a_missing_file_may_be_optional(hub: Hub) -> None:
    assert files().header("model.safetensors", optional=True) is None
    assert "Entry Not Found" in refusal(lambda: files().header("model.safetensors"))


def test_pieces_are_files_that_others_read(hub: Hub, folder: Path, tmp_path: Path) -> None:
    files().bring({FIRST: names(folder, "audio_tower.layers.2.")})
    (piece,) = kept(tmp_path, "*.safetensors/*.safetensors")
    with safe_open(piece, "pt") as opened, safe_open(folder / FIRST, "pt") as whole:
        assert set(opened.keys()) == set(names(folder, "audio_tower.layers.2."))
        for name in opened.keys():  # noqa: SIM118 (not a dict)
            assert torch.equal(opened.get_tensor(name), whole.get_tensor(name))
    assert int.from_bytes(piece.read_bytes()[:8], "little") % 8 == 0


def test_an_unknown_tensor(hub: Hub) -> None:
    message = refusal(lambda: files().bring({FIRST: ["audio_tower.conv9.weight"]}))
    assert f"{FIRST} has no tensor audio_tower.conv9.weight" in message


# Whole files.


def test_a_file_that_is_wanted_whole_comes_whole(hub: Hub, folder: Path) -> None:
    model, wanted = files(), {FIRST: names(folder, "")}
    assert model.missing(wanted) == (folder / FIRST).stat().st_size
    model.bring(wanted)
    assert (model.folder / FIRST).read_bytes() == (folder / FIRST).read_bytes()
    assert hub.sent[FIRST] == HEADER + (folder / FIRST).stat().st_size
    assert is_equal(model, folder, wanted[FIRST])
    hub.forget()
    assert model.header(FIRST) == read_header(folder / FIRST)
    assert files().missing(wanted) == 0
    assert hub.fetched() == []


def test_a_file_that_is_partly_held_does_not(hub: Hub, folder: Path) -> None:
    model = files()
    model.bring({FIRST: names(folder, "audio_tower.layers.0.")})
    model.bring({FIRST: names(folder, "")})
    assert not (model.folder / FIRST).exists()
    assert hub.sent[FIRST] == HEADER + size(folder, names(folder, ""))


@pytest.mark.parametrize(
    "tampered",
    [
        {"Content-Range": ""},
        {"Content-Range": "bytes 5-9/10"},
        {"Content-Range": "bytes 0-99/*"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_answers_that_are_not_the_range_asked_for(
    tampered: dict[str, str], hub: Hub, folder: Path
) -> None:
    hub.tampered = tampered
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.bring({FIRST: wanted})
    assert is_equal(model, folder, wanted)
    assert (model.folder / FIRST).is_file()


def test_a_server_without_ranges(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 20)  # it reports as often
    hub.sends_ranges, hub.pause = False, 0.01
    model, wanted = files(), {SECOND: names(folder, "language_model.model.layers.0.", SECOND)}
    assert model.header(SECOND) is None
    whole = (folder / SECOND).stat().st_size
    assert hub.sent[SECOND] < whole / 2  # hung up on
    assert model.missing(wanted) == whole
    hub.pause = 0.0
    told: list[tuple[int, int]] = []
    model.bring(wanted, lambda done, total: told.append((done, total)))
    assert told[-1] == (whole, whole)
    assert len(told) > 5
    assert is_equal(model, folder, wanted[SECOND], SECOND)
    assert model.header(SECOND) == read_header(folder / SECOND)
    assert model.held(SECOND).keys() == read_header(folder / SECOND).keys()


def test_a_server_that_stops_sending_ranges(hub: Hub, folder: Path) -> None:
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.")}
    model.header(FIRST)
    hub.pause = 0.002
    told: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        hub.sends_ranges = False
        told.append((done, total))

    model.bring(wanted, report)
    assert is_equal(model, folder, wanted[FIRST])
    whole = (folder / FIRST).stat().st_size
    assert (model.folder / FIRST).stat().st_size == whole
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > whole


# Progress.


def test_progress(hub: Hub, folder: Path) -> None:
    model = files()
    wanted = {FIRST: names(folder, "audio_tower.layers."), SECOND: names(folder, "", SECOND)}
    total, told = model.missing(wanted), [(0, 0)]
    calling: list[int] = []

    def report(done: int, all_of_it: int) -> None:
        calling.append(threading.get_ident())
        time.sleep(0.0005)  # so that two at once would meet
        assert calling[-1] == threading.get_ident()
        assert all_of_it == total
        told.append((done, all_of_it))

    model.bring(wanted, report)
    steps = [done for done, _ in told]
    assert steps == sorted(set(steps))
    assert steps[-1] == total
    assert len(steps) > 20
    assert len(set(calling)) > 1  # several came at the same time


def test_whole_files_show_no_bar_of_their_own(
    hub: Hub, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # for the client to show them, terminal or not
    model = files()
    capfd.readouterr()
    model.bring({FIRST: names(folder, "")}, lambda done, total: None)
    assert capfd.readouterr().err == ""


# What breaks off.


def test_a_body_that_breaks_off_is_gone_on_with(hub: Hub, folder: Path) -> None:
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.forget()
    hub.breaks[FIRST] = 200_000
    model.bring({FIRST: wanted})
    assert hub.sent[FIRST] == size(folder, wanted)
    assert len(hub.ranges) == 2
    assert is_equal(model, folder, wanted)


def test_a_hub_that_has_hiccups(hub: Hub, folder: Path) -> None:
    hub.hiccups[FIRST] = 2
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.bring({FIRST: wanted})
    assert is_equal(model, folder, wanted)


def test_a_body_that_keeps_breaking_off(hub: Hub, folder: Path, tmp_path: Path) -> None:
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.truncate[FIRST] = 100_000
    message = refusal(lambda: model.bring({FIRST: wanted}))
    assert f"of {FIRST} broke off at 300000 of {size(folder, wanted)} bytes" in message
    assert message.endswith("try again, what came is kept")
    assert model.held(FIRST) == {}
    assert kept(tmp_path, "[0-9]*.safetensors") == []

    hub.truncate.clear()
    hub.forget()
    rest = size(folder, wanted) - 300_000
    again = files()
    assert again.missing({FIRST: wanted}) == rest
    told: list[tuple[int, int]] = []
    again.bring({FIRST: wanted}, lambda done, total: told.append((done, total)))
    assert told[-1] == (rest, rest)
    assert hub.sent[FIRST] == rest
    assert is_equal(again, folder, wanted)
    assert kept(tmp_path, "*.incomplete") == []


def test_answers_that_are_too_long(hub: Hub, folder: Path) -> None:
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.surplus = 100
    model.bring({FIRST: wanted})
    assert is_equal(model, folder, wanted)


def test_answers_that_are_too_short(hub: Hub, folder: Path) -> None:
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.surplus = -100
    message = refusal(lambda: model.bring({FIRST: wanted}))
    length = size(folder, wanted)
    assert f"broke off at {length - 100} of {length} bytes (the answer is shorter than" in message


def test_breaks_between_which_much_comes_are_no_failures(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen_audio.weights.download, "_PROGRESS", 50_000)
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.truncate[FIRST] = 60_000
    model.bring({FIRST: wanted})
    assert len(hub.ranges) > 8
    assert is_equal(model, folder, wanted)


@pytest.mark.parametrize("beginning", [b"", b"\x10", b"no header of ours" * 200, None])
def test_beginnings_of_pieces(
    beginning: bytes | None, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    """Of the piece itself, cut in its header; of something else; and one that is too long."""
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.bring({FIRST: wanted})
    (piece,) = kept(tmp_path, "*.safetensors/*.safetensors")
    whole = piece.read_bytes()
    start = whole[: len(beginning)] if beginning == b"\x10" else beginning
    piece.with_suffix(".incomplete").write_bytes(whole + b"more" if start is None else start)
    piece.unlink()
    assert model.missing({FIRST: wanted}) == size(folder, wanted)
    model.bring({FIRST: wanted})
    assert piece.read_bytes() == whole


def test_a_damaged_piece_is_fetched_again(hub: Hub, folder: Path, tmp_path: Path) -> None:
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.bring({FIRST: wanted})
    (piece,) = kept(tmp_path, "*.safetensors/*.safetensors")
    os.truncate(piece, 5000)
    again = files()
    assert again.held(FIRST) == {}
    again.bring({FIRST: wanted})
    assert is_equal(again, folder, wanted)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"etag": "x", "size": 9, "header": "{}"}'])
def test_a_damaged_header_is_fetched_again(
    text: str, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    files().header(FIRST)
    (file,) = kept(tmp_path, "header.json")
    file.write_text(text)
    assert files().header(FIRST) == read_header(folder / FIRST)


def test_an_interruption_leaves_nothing_that_is_taken_for_whole(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.")}
    model.header(FIRST)
    hub.pause = 0.005

    def interrupted(done: int, total: int) -> None:
        if done > 400_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.bring(wanted, interrupted)
    for piece in kept(tmp_path, "*.safetensors/*.safetensors"):
        read_header(piece)
    assert kept(tmp_path, "*.incomplete") != []
    hub.pause = 0.0
    model.bring(wanted)
    assert is_equal(model, folder, wanted[FIRST])
    assert kept(tmp_path, "*.incomplete") == []


def test_an_interruption_ends_further_tries(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wanted = files(), {FIRST: ["audio_tower.conv1.weight"], SECOND: [TABLE]}
    model.missing(wanted)
    hub.forget()
    hub.status[FIRST] = (503, "")
    monkeypatch.setattr(qwen_audio.weights.download, "_WAIT_SECONDS", 0.5)

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.bring(wanted, interrupted)
    assert hub.fetched().count(FIRST) <= 1


def test_an_interruption_does_not_wait_for_another_process(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    model = files()
    wanted = {FIRST: [*names(folder, "audio_tower.layers.3."), "audio_tower.conv1.weight"]}
    (locked, _) = cut(
        {name: slot for name, slot in read_header(folder / FIRST).items() if name in wanted[FIRST]}
    )
    model.header(FIRST)
    (place,) = kept(tmp_path, "header.json")

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with WeakFileLock(place.parent / f"{locked.stem}.lock"), pytest.raises(KeyboardInterrupt):
        model.bring(wanted, interrupted)


# Several at once.

fork = multiprocessing.get_context("fork")


def bring_in_a_process(wanted: dict[str, list[str]]) -> None:
    files().bring(wanted)


def test_two_processes_at_once_move_each_byte_once(hub: Hub, folder: Path) -> None:
    wanted = {FIRST: names(folder, "audio_tower.layers.")}
    hub.pause = 0.005
    both = [fork.Process(target=bring_in_a_process, args=(wanted,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert hub.sent[FIRST] == HEADER + size(folder, wanted[FIRST])
    hub.forget()
    model = files()
    model.bring(wanted)
    assert hub.fetched() == []
    assert is_equal(model, folder, wanted[FIRST])


def test_two_threads_at_once_move_each_byte_once(hub: Hub, folder: Path) -> None:
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.")}
    told: list[list[tuple[int, int]]] = [[], []]

    def bring(mine: list[tuple[int, int]]) -> None:
        model.bring(wanted, lambda done, total: mine.append((done, total)))

    hub.pause = 0.002
    other = threading.Thread(target=bring, args=(told[0],))
    other.start()
    bring(told[1])
    other.join()
    assert hub.sent[FIRST] == HEADER + size(folder, wanted[FIRST])
    assert all(mine[-1][0] == mine[-1][1] for mine in told)  # whoever brought it
    assert is_equal(model, folder, wanted[FIRST])


def test_locks_that_hold_nobody_back_cost_bytes_alone(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network file systems."""
    monkeypatch.setattr("huggingface_hub.utils.WeakFileLock", lambda *_, **__: nullcontext())
    wanted = {FIRST: names(folder, "audio_tower.layers.")}
    hub.pause = 0.002
    models = [files() for _ in range(3)]
    others = [threading.Thread(target=model.bring, args=(wanted,)) for model in models[1:]]
    for other in others:
        other.start()
    models[0].bring(wanted)
    for other in others:
        other.join()
    assert hub.sent[FIRST] > HEADER + size(folder, wanted[FIRST])  # they did meet
    assert is_equal(models[0], folder, wanted[FIRST])
    assert kept(tmp_path, "*.incomplete") == []


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    wanted = {FIRST: names(folder, "audio_tower.layers.")}
    hub.pause = 0.02
    process = fork.Process(target=bring_in_a_process, args=(wanted,))
    process.start()
    while hub.sent[FIRST] < HEADER + 600_000:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    hub.pause = 0.0
    time.sleep(0.1)  # the server notices
    assert kept(tmp_path, "*.incomplete") != []
    model = files()
    held = model.held(FIRST)
    assert is_equal(model, folder, list(held))
    hub.forget()
    model.bring(wanted)
    assert is_equal(model, folder, wanted[FIRST])
    assert hub.sent[FIRST] < size(folder, wanted[FIRST]) - 200_000  # the rest alone


# Offline.


def test_what_is_held_serves_offline(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {FIRST: names(folder, "audio_tower.layers.3.")}
    files().bring(wanted)
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = files()
    assert model.header(FIRST) == read_header(folder / FIRST)
    model.bring(wanted)
    assert is_equal(model, folder, wanted[FIRST])
    message = refusal(lambda: model.bring({FIRST: names(folder, "audio_tower.layers.4.")}))
    assert f"audio_tower.layers.4.fc1.bias … of {FIRST} is not in the local cache" in message
    assert "HF_HUB_OFFLINE" in message
    message = refusal(lambda: model.bring({SECOND: [TABLE]}))
    assert message.startswith(f"{MODEL}: {SECOND} is not in the local cache and the hub can't")
    assert "HF_HUB_OFFLINE" in refusal(lambda: model.missing({SECOND: [TABLE]}))
    assert hub.requests == []


# Another file than was first seen.


@pytest.mark.parametrize("storage", [None, ""])
def test_another_etag(storage: str | None, hub: Hub, folder: Path) -> None:
    hub.storage = storage
    model = files()
    model.bring({FIRST: names(folder, "audio_tower.layers.3.")})
    hub.etags[FIRST] = "another"
    for other in (model, files()):
        message = refusal(lambda: other.bring({FIRST: names(folder, "audio_tower.layers.4.")}))
        assert f"{MODEL}: {FIRST} is not the file first seen at this commit" in message
        assert "delete " in message


def test_a_weak_etag_is_the_same(hub: Hub, folder: Path) -> None:
    """As a proxy makes it."""
    hub.etags[FIRST] = "one"
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.header(FIRST)
    hub.tampered = {"ETag": 'W/"one"'}
    model.bring({FIRST: wanted})
    assert is_equal(model, folder, wanted)


@pytest.mark.parametrize("more", [4, -4_000_000])
def test_another_size(more: int, hub: Hub, folder: Path) -> None:
    hub.etags[FIRST] = "the same"
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.4.")}
    model.header(FIRST)
    os.truncate(folder / FIRST, (folder / FIRST).stat().st_size + more)
    message = refusal(lambda: model.bring(wanted))
    assert "is not the file first seen at this commit" in message


def test_another_file_in_the_middle_of_a_piece(hub: Hub, folder: Path) -> None:
    model = files()
    model.header(FIRST)
    hub.breaks[FIRST] = 100_000
    hub.pause = 0.01

    def changed(done: int, total: int) -> None:
        hub.etags[FIRST] = "another"

    wanted = {FIRST: names(folder, "audio_tower.layers.4.")}
    assert "first seen" in refusal(lambda: model.bring(wanted, changed))
    assert model.held(FIRST) == {}


# Where the hub sends clients on to.


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_storage_elsewhere_gets_no_token(
    where: str, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By relative and absolute addresses; the token is for the hub alone."""
    token = "hf_" + "a" * 34
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", token)
    hub.storage = "" if where == "beside" else hub.url.replace("127.0.0.1", "localhost")
    model, wanted = files(), names(folder, "audio_tower.layers.3.")
    model.bring({FIRST: wanted})
    assert is_equal(model, folder, wanted)
    assert hub.sent[FIRST] == HEADER + size(folder, wanted)
    hosts = {host.split(":")[0] for host, _, _ in hub.tokens}
    assert hosts == ({"127.0.0.1", "localhost"} if where == "elsewhere" else {"127.0.0.1"})
    for host, _, sent in hub.tokens:
        assert sent == ("" if host.startswith("localhost") else f"Bearer {token}")


# Refused.


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
def test_refusals(status: int, code: str, reason: str, hub: Hub, folder: Path) -> None:
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.3.")}
    hub.status[FIRST] = (status, code)
    message = refusal(lambda: model.bring(wanted))
    assert message.startswith(f"{MODEL}: {FIRST} can't be fetched from the hub (")
    assert reason in message
    assert "access token" in message
    assert hub.fetched().count(FIRST) == (3 if status in (429, 503) else 1)

    hub.status.clear()
    model.header(FIRST)
    hub.status[FIRST] = (status, code)
    message = refusal(lambda: model.bring(wanted))
    assert reason in message
    assert f"audio_tower.layers.3.fc1.bias … of {FIRST} can't be fetched" in message


def test_a_hub_out_of_reach_is_soon_noticed(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.3.")}
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for act in (
        lambda: model.bring(wanted),
        lambda: model.fetch_file("tokenizer.json"),
        lambda: HubFiles.resolve("owner/another", None),
    ):
        began = time.monotonic()
        assert "the hub can't be reached" in refusal(act)
        assert time.monotonic() - began < 4


def test_a_hub_that_is_down_is_soon_noticed(hub: Hub) -> None:
    hub.status["config.json"] = (503, "")
    began = time.monotonic()
    assert "503" in refusal(files)
    assert time.monotonic() - began < 4
    assert hub.requests == [("HEAD", MODEL, "config.json")] * 3


# No room.


def test_too_little_room_is_noticed_before(
    hub: Hub, folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, small_disk, monkeypatch)
    wanted = {FIRST: names(folder, "audio_tower.layers.")}
    message = refusal(lambda: files().bring(wanted))
    assert f"{MODEL}: {size(folder, wanted[FIRST])} bytes are to come" in message
    assert "make room" in message
    assert hub.sent[FIRST] == HEADER


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only where a file system can be mounted")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up(
    hub: Hub, folder: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, small_disk, monkeypatch)
    model, wanted = files(), {FIRST: names(folder, "audio_tower.layers.0.")}
    filler = small_disk / "filler"

    def fill(done: int, total: int) -> None:
        if not filler.exists():
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(max(0, free - 100_000)))

    message = refusal(lambda: model.bring(wanted, fill))
    assert "can't be kept on this machine ([Errno 28] No space left on device)" in message
    assert model.held(FIRST) == {}
    filler.unlink()
    model.bring(wanted)
    assert is_equal(model, folder, wanted[FIRST])


def bring_in_small_files(wanted: dict[str, list[str]], answer: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    answer.send(refusal(lambda: files().bring(wanted)))


def test_a_file_that_may_not_grow(hub: Hub, folder: Path, tmp_path: Path) -> None:
    wanted = {FIRST: names(folder, "audio_tower.layers.0.")}
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=bring_in_small_files, args=(wanted, there))
    process.start()
    assert here.poll(30)
    assert "can't be kept on this machine ([Errno 27] File too large)" in here.recv()
    process.join()
    assert kept(tmp_path, "*.safetensors/*.safetensors") == []
    model = files()
    model.bring(wanted)
    assert is_equal(model, folder, wanted[FIRST])
    starts = [int(asked.removeprefix("bytes=").split("-")[0]) for _, asked in hub.ranges[2:]]
    assert 250_000 < starts[1] - starts[0] < 300_000  # gone on with


# Rows of a table.


def row_values(folder: Path, rows: list[int]) -> list[torch.Tensor]:
    with safe_open(folder / SECOND, "pt") as opened:
        table = opened.get_tensor(TABLE)
    return [table[row] for row in rows]


def test_single_rows(hub: Hub, folder: Path) -> None:
    model, rows = files(), [15999, 17, 3, 18, 17]
    told: list[tuple[int, int]] = []
    found = model.bring_rows(SECOND, TABLE, rows, lambda done, total: told.append((done, total)))
    assert found.keys() == set(rows)
    assert all(map(torch.equal, [found[row] for row in rows], row_values(folder, rows)))
    moved = 3 * 16 * 512
    assert hub.sent[SECOND] == HEADER + moved
    assert told[-1] == (moved, moved)
    assert model.held(SECOND) == {}

    hub.forget()
    again = files().bring_rows(SECOND, TABLE, [16, 2], nothing_comes)
    assert all(map(torch.equal, again.values(), row_values(folder, [2, 16])))
    assert hub.fetched() == []


def test_rows_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = files()
    model.bring_rows(SECOND, TABLE, [17])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert files().bring_rows(SECOND, TABLE, [17]).keys() == {17}
    message = refusal(lambda: files().bring_rows(SECOND, TABLE, [99]))
    assert f"{TABLE} of {SECOND} is not in the local cache" in message


def test_rows_of_a_table_that_is_held(hub: Hub, folder: Path) -> None:
    model = files()
    model.bring({SECOND: [TABLE]})
    hub.forget()
    found = model.bring_rows(SECOND, TABLE, [5, 6000])
    assert all(map(torch.equal, found.values(), row_values(folder, [5, 6000])))
    assert hub.fetched() == []


def test_rows_that_cost_as_much_as_the_table(hub: Hub, folder: Path) -> None:
    """Each is a request, and each request a wait."""
    model, rows = files(), list(range(0, 16000, 500))
    found = model.bring_rows(SECOND, TABLE, rows)
    assert all(map(torch.equal, found.values(), row_values(folder, rows)))
    assert TABLE in model.held(SECOND)
    assert len(hub.ranges) == 3


def test_many_rows_that_are_held(hub: Hub, folder: Path) -> None:
    """They came a few at a time, and cost nothing now."""
    model, rows = files(), list(range(0, 16000, 500))
    for first in range(0, len(rows), 4):
        model.bring_rows(SECOND, TABLE, rows[first : first + 4])
    hub.forget()
    found = files().bring_rows(SECOND, TABLE, rows)
    assert all(map(torch.equal, found.values(), row_values(folder, rows)))
    assert SECOND not in hub.fetched()


def test_rows_from_a_server_without_ranges(hub: Hub, folder: Path) -> None:
    model = files()
    model.header(SECOND)
    hub.sends_ranges = False
    for mine in (model, files()):
        found = mine.bring_rows(SECOND, TABLE, [5, 6000])
        assert all(map(torch.equal, found.values(), row_values(folder, [5, 6000])))


@pytest.mark.parametrize("row", [-1, 16000])
@pytest.mark.parametrize("held", [False, True])
def test_rows_that_there_are_not(row: int, held: bool, hub: Hub) -> None:
    model = files()
    if held:
        model.bring({SECOND: [TABLE]})
    message = refusal(lambda: model.bring_rows(SECOND, TABLE, [0, row]))
    assert f"{TABLE} has rows 0 … 15999" in message


def test_no_rows(hub: Hub) -> None:
    assert files().bring_rows(SECOND, TABLE, []) == {}


# How files are cut.


def slots(*sizes: tuple[str, int]) -> dict[str, TensorInfo]:
    """Tensors of these sizes, one after another."""
    found, at = {}, 100
    for name, length in sizes:
        found[name] = TensorInfo("U8", (length,), at, at + length)
        at += length
    return found


def stems(pieces: list[ByteRange]) -> list[str]:
    return [piece.stem for piece in pieces]


def test_modules_are_cut_apart() -> None:
    """Whoever wants one of them means the same piece as who wants all."""
    laid = slots(
        ("a.layers.1.fc1.bias", 10),
        ("a.layers.1.fc2.bias", 10),
        ("a.layers.10.fc1.bias", 10),
        ("a.norm.bias", 10),
        ("a.norm.weight", 10),
    )
    whole = cut(laid)
    assert stems(whole) == ["100-120", "120-130", "130-150"]
    one = {name: slot for name, slot in laid.items() if "layers.1." in name}
    assert cut(one) == whole[:1]
    gap = {name: slot for name, slot in laid.items() if name != "a.layers.1.fc2.bias"}
    assert stems(cut(gap)) == ["100-110", "120-130", "130-150"]


def test_large_modules_come_as_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen_audio.weights.byte_ranges, "_LARGEST_PIECE", 100)
    laid = slots(("l.0.a", 60), ("l.0.b", 40), ("l.0.c", 1), ("l.0.d", 500), ("l.0.e", 5))
    assert stems(cut(laid)) == ["100-200", "200-201", "201-701", "701-706"]


def test_empty_tensors() -> None:
    laid = slots(("l.0.a", 0), ("l.0.b", 4), ("l.0.c", 0))
    assert stems(cut(laid)) == ["100-104"]
    assert stems(cut(slots(("l.0.a", 0)))) == ["100-100"]


def test_blocks_of_rows() -> None:
    table = TensorInfo("F32", (40, 2), 1000, 1320)
    blocks = row_blocks("t", table, [3, 39, 4, 15])
    assert stems(list(blocks.values())) == ["rows-1000-1128", "rows-1256-1320"]
    assert blocks.keys() == {0, 32}
    assert blocks[32].slots["t"] == TensorInfo("F32", (8, 2), 1256, 1320)


def test_heads_are_what_the_format_says() -> None:
    head = ByteRange(slots(("a", 3)), 100, 103).head
    assert json.loads(head[8:]) == {"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}

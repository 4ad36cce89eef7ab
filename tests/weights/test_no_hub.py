"""What answers but is no hub, addresses of storage that expire, and servers that ask to wait."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import close_session
from safetensors.torch import save_file

import qwen_audio.weights.download
from hub_server import Hub, serve, use_hub
from qwen_audio.errors import CheckpointError
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.hub_errors import hub_error
from qwen_audio.weights.safetensors_file import read_tensors

MODEL, FILE = "owner/Small-Audio", "model.safetensors"
LOGIN = b"<html><body>Please log in to the Wi-Fi</body></html>"
ANSWERS = {
    "login page": (200, {"Content-Type": "text/html"}, LOGIN),
    "mirror without commits": (200, {"ETag": '"abc"'}, b"{}"),
    "nothing": (200, {}, b""),
    "redirect to a login page": (302, {"Location": "http://portal.invalid/login"}, b""),
    "network authentication": (511, {"Content-Type": "text/html"}, LOGIN),
}


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of two layers, of 256 KiB each."""
    folder = tmp_path_factory.mktemp("small") / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    generator = torch.Generator().manual_seed(0)
    layers = {f"x.layers.{k}.w": torch.randn((256, 256), generator=generator) for k in range(2)}
    save_file(layers, folder / FILE)
    return folder


@pytest.fixture
def hub(shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with that model, an empty cache, and no waiting between attempts."""
    with serve() as hub:
        hub.repos[MODEL] = Path(shutil.copytree(shared_folder, tmp_path / "model"))
        use_hub(hub, tmp_path, monkeypatch)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        monkeypatch.setattr(qwen_audio.weights.download, "_RETRY_SECONDS", 0.0)
        yield hub
    close_session()


@pytest.fixture
def storage(hub: Hub) -> Hub:
    """The hub, whose storage is on another host; an address can be used once."""
    hub.storage_url = hub.url.replace("127.0.0.1", "localhost")
    hub.signed = True
    return hub


def error_message(call: Callable[[], Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def equals_hub(model: HubFiles, names: list[str], folder: Path) -> bool:
    cached = model.cached_tensors(FILE)
    stored = HubFiles(MODEL, folder, "").cached_tensors(FILE)
    ours = read_tensors({name: cached[name] for name in names})
    return all(torch.equal(ours[k], v) for k, v in read_tensors(stored).items() if k in ours)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_hub_is_named(answer: Any, hub: Hub) -> None:
    hub.answer = answer
    message = error_message(lambda: HubFiles.resolve(MODEL, None))
    assert "config.json is not in the local cache and the hub can't be reached" in message
    assert f"what answers at {hub.url} is no hub" in message
    assert "HF_ENDPOINT" in message
    assert "token" not in message
    hub.answer = None
    first = HubFiles.resolve(MODEL, None)
    hub.answer = answer
    assert HubFiles.resolve(MODEL, None).folder == first.folder  # what is cached is used


@pytest.mark.parametrize("status", [407, 502])
def test_a_proxy_that_refuses(status: int, hub: Hub) -> None:
    hub.answer = (status, {}, LOGIN)
    message = error_message(lambda: HubFiles.resolve(MODEL, None))
    assert str(status) in message
    assert "token" not in message
    assert ("HTTPS_PROXY" if status == 407 else "try again later") in message


def test_answers_that_are_not_http(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached is used then, too."""
    HubFiles.resolve(MODEL, None)

    def garbage(*_: Any, **__: Any) -> None:
        raise httpx2.RemoteProtocolError("illegal status line")

    monkeypatch.setattr("huggingface_hub.file_download.get_hf_file_metadata", garbage)
    assert HubFiles.resolve(MODEL, None).commit


def test_an_intercepted_certificate_is_named() -> None:
    error = httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    message = str(hub_error(MODEL, "config.json", error))
    assert "certificate isn't trusted" in message
    assert "SSL_CERT_FILE" in message


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_network_that_changes_amid_a_model(answer: Any, hub: Hub) -> None:
    model = HubFiles.resolve(MODEL, None)
    model.header(FILE)
    hub.answer = answer
    message = error_message(lambda: model.download({FILE: ["x.layers.0.w"]}))
    assert "is no hub" in message or "can't be reached" in message
    assert "delete" not in message
    hub.answer = None
    model.download({FILE: ["x.layers.0.w"]})
    assert equals_hub(model, ["x.layers.0.w"], hub.repos[MODEL])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_address_of_a_range_is_asked_for_again(status: int, storage: Hub) -> None:
    model = HubFiles.resolve(MODEL, None)
    model.header(FILE)
    storage.clear_log()
    storage.truncate_once[FILE] = 100_000
    storage.refusals[FILE], storage.refuse_after = [status], 100_000
    reports: list[int] = []
    model.download({FILE: ["x.layers.1.w"]}, lambda done, _: reports.append(done))
    assert storage.bytes_sent[FILE] == reports[-1] == 1 << 18
    assert equals_hub(model, ["x.layers.1.w"], storage.repos[MODEL])


def test_an_expired_address_of_a_whole_file_is_asked_for_again(storage: Hub) -> None:
    names, folder = ["x.layers.0.w", "x.layers.1.w"], storage.repos[MODEL]
    model = HubFiles.resolve(MODEL, None)
    model.header(FILE)
    storage.clear_log()
    storage.truncate_once[FILE] = 200_000
    storage.refusals[FILE], storage.refuse_after = [403], 200_000
    model.download({FILE: names})
    assert storage.bytes_sent[FILE] == (folder / FILE).stat().st_size
    assert (model.folder / FILE).read_bytes() == (folder / FILE).read_bytes()


def test_a_whole_file_resumes_in_the_next_process(storage: Hub, tmp_path: Path) -> None:
    names, size = ["x.layers.0.w", "x.layers.1.w"], (storage.repos[MODEL] / FILE).stat().st_size
    model = HubFiles.resolve(MODEL, None)
    model.header(FILE)
    storage.clear_log()
    storage.truncate[FILE] = 100_000
    assert "the download resumes there" in error_message(lambda: model.download({FILE: names}))
    storage.truncate.clear()
    again = HubFiles.resolve(MODEL, None)
    assert again.missing_bytes({FILE: names}) == size - 300_000
    again.download({FILE: names})
    assert storage.bytes_sent[FILE] == size
    assert equals_hub(again, names, storage.repos[MODEL])
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize("names", [["x.layers.0.w"], ["x.layers.0.w", "x.layers.1.w"]])
def test_storage_that_always_refuses_is_named(names: list[str], storage: Hub) -> None:
    model = HubFiles.resolve(MODEL, None)
    model.header(FILE)
    storage.clear_log()
    storage.refusals[FILE] = [403] * 9
    message = error_message(lambda: model.download({FILE: names}))
    assert "is refused by the storage that the hub names (403)" in message
    assert "clock" in message
    assert "token" not in message
    assert len(storage.refusals[FILE]) == 6


def test_a_server_without_ranges_is_asked_again(storage: Hub) -> None:
    storage.sends_ranges = False
    model = HubFiles.resolve(MODEL, None)
    storage.refusals[FILE] = [403]
    model.download({FILE: ["x.layers.0.w"]})
    assert equals_hub(model, ["x.layers.0.w"], storage.repos[MODEL])


@pytest.mark.parametrize(("retry_after", "waits"), [("7", [7, 7]), ("0", [0, 0]), ("3600", [])])
def test_servers_say_when_to_try_again(
    retry_after: str, waits: list[float], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    model = HubFiles.resolve(MODEL, None)
    monkeypatch.setattr("qwen_audio.weights.download.time.sleep", waited.append)
    hub.retry_after = retry_after
    hub.error_status[FILE] = (429, "")
    message = error_message(lambda: model.download({FILE: ["x.layers.0.w"]}))
    assert "429" in message
    assert "try again later" in message
    assert waited == waits

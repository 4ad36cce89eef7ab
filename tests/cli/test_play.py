"""`qwen-audio play`: its defaults, and its errors in one line."""

from __future__ import annotations

import re
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from checkpoints import random_checkpoint
from commands import CommandResult, run
from qwen_audio.playground import launch
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.document import page_document
from qwen_audio.playground.limits import DEMO_LIMITS, Limits

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="needs Gradio")


@pytest.fixture
def launch_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of `launch_playground`, which is replaced."""
    launched: dict[str, Any] = {}

    class FakePlayground:
        url, share_url = "http://here/", None

        def wait(self) -> None:
            launched["waited"] = True

        def close(self) -> None:
            launched["closed"] = True

    def launch_playground(
        model: qa.AudioModel, collection: str | None = None, **options: Any
    ) -> FakePlayground:
        launched.update(options, model=model.name, collection=collection)
        return FakePlayground()

    monkeypatch.setattr(launch, "launch_playground", launch_playground)
    return launched


def test_defaults(launch_arguments: dict[str, Any]) -> None:
    done = run("play")
    assert done.stdout == "The playground is open at http://here/ (Ctrl-C closes it)\n"
    assert launch_arguments["host"] == "127.0.0.1"
    assert launch_arguments["share"] is False
    assert launch_arguments["port"] is launch_arguments["collection"] is None
    assert launch_arguments["limits"].recording_seconds == 600
    assert launch_arguments["waited"]
    assert launch_arguments["closed"]


def error_line(done: CommandResult) -> str:
    """The last line on standard error of a failed command."""
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = error_line(run("play", "--port", str(port)))
    assert message.startswith(f"qwen-audio: --port {port} is in use")
    assert message.endswith("choose another, or leave it out for the next free one")


def test_without_a_port_the_first_free_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr(launch, "_PORTS", ports)
        with launch.listen_for_page("127.0.0.1", None) as found:
            assert found.getsockname()[1] == ports[1]
        monkeypatch.setattr(launch, "_PORTS", ports[:1])
        with pytest.raises(qa.OptionError, match="are all in use"):
            launch.listen_for_page("127.0.0.1", None)


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_ports_out_of_range(port: str) -> None:
    assert error_line(run("play", f"--port={port}")).endswith("use a whole number from 1 to 65535")


@pytest.mark.parametrize("host", ["203.0.113.1", "nowhere.invalid"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    message = error_line(run("play", "--host", host))
    assert f"--host {host} is not an address of this machine" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing.lance", "no such collection"), ("songs", "a collection's name ends in .lance")],
)
def test_no_collection(tmp_path: Path, name: str, message: str) -> None:
    assert message in error_line(run("play", "--collection", tmp_path / name))


def test_a_collection_of_another_model(tmp_path: Path, launch_arguments: dict[str, Any]) -> None:
    music = qa.Collection.create(tmp_path / "music.lance", qa.load())
    other = random_checkpoint(tmp_path / "other", width=32, encoder_layers=1, lm_layers=1)
    message = error_line(run("play", "--collection", music.path, "--model", other))
    assert "holds vectors of another embedding spec" in message
    assert not launch_arguments
    assert run("play", "--collection", music.path).returncode == 0
    assert Path(launch_arguments["collection"]) == music.path


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_limits_must_be_positive(minutes: str) -> None:
    message = error_line(run("play", f"--max-minutes={minutes}"))
    assert re.fullmatch(r"qwen-audio: --max-minutes \S+: use a number greater than 0", message)


def test_a_demo_has_short_limits(launch_arguments: dict[str, Any]) -> None:
    assert run("play", "--demo").returncode == 0
    assert launch_arguments["limits"] == DEMO_LIMITS
    assert launch_arguments["collection"] is None
    usual = vars(Limits())
    shorter = {name for name, value in vars(DEMO_LIMITS).items() if value < usual[name]}
    assert {name for name, value in usual.items() if vars(DEMO_LIMITS)[name] != value} == shorter
    help_text = " ".join(run("play", "--help").stdout.split())
    assert "recordings of a minute and 10 MB, answers of 64 tokens, 16 waiting" in help_text
    assert (DEMO_LIMITS.recording_text, DEMO_LIMITS.upload_text) == ("1 minute", "10 MB")


def test_the_page_says_its_limits() -> None:
    document = page_document(AppContext(qa.load(), DEMO_LIMITS))
    assert "up to 1 minute and 10 MB" in document
    assert (
        "Answers have at most 64 tokens, at most 16 requests may wait, and recordings and results "
        "are deleted after 5 minutes without a request." in document
    )


@pytest.mark.parametrize("option", ["--collection=music.lance", "--max-minutes=1"])
def test_a_demo_takes_no_collection_and_no_other_limits(option: str) -> None:
    message = error_line(run("play", "--demo", option))
    assert message.startswith("qwen-audio: --demo ")
    assert message.endswith(f"leave out {option.partition('=')[0]}, or --demo")

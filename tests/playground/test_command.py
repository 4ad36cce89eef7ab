"""`qwen-audio play`: what it opens unless told otherwise, and what it refuses in one line."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from checkpoints import random_checkpoint
from commands import Done, run

pytest.importorskip("gradio")
from qwen_audio.playground import launch


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command would open, instead of opening it."""
    told: dict[str, Any] = {}

    class Opened:
        url, share_url = "http://here/", None

        def wait(self) -> None:
            told["waited"] = True

        def close(self) -> None:
            told["closed"] = True

    def launch_playground(
        model: qa.AudioModel, collection: str | None = None, **options: Any
    ) -> Opened:
        told.update(options, model=model.name, collection=collection)
        return Opened()

    monkeypatch.setattr(launch, "launch_playground", launch_playground)
    return told


def test_it_opens_on_this_machine_alone_unless_told_otherwise(opened: dict[str, Any]) -> None:
    done = run("play")
    assert done.stdout == "The playground is open at http://here/ (Ctrl-C closes it)\n"
    assert opened["host"] == "127.0.0.1"
    assert opened["share"] is False
    assert opened["port"] is opened["collection"] is None
    assert opened["limits"].recording_seconds == 600
    assert opened["waited"]
    assert opened["closed"]


def one_line(done: Done) -> str:
    """What a refusal says."""
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_named_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = one_line(run("play", "--port", str(port)))
    assert said.startswith(f"qwen-audio: port={port} is in use")
    assert said.endswith("choose another, or leave it out for the next free one")


def test_without_a_port_the_next_that_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr(launch, "_PORTS", ports)
        assert launch._free_port("127.0.0.1", None) == ports[1]
        monkeypatch.setattr(launch, "_PORTS", ports[:1])
        with pytest.raises(qa.OptionError, match="are all in use"):
            launch._free_port("127.0.0.1", None)


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_what_is_no_port_is_refused(port: str) -> None:
    assert one_line(run("play", f"--port={port}")).endswith("use a number from 1 to 65535")


@pytest.mark.parametrize("host", ["203.0.113.1", "nowhere.invalid"])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    said = one_line(run("play", "--host", host))
    assert f"host='{host}' is not an address of this machine" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothing.lance", "no such collection"), ("songs", "a collection's name ends in .lance")],
)
def test_what_is_no_collection_is_refused(tmp_path: Path, name: str, words: str) -> None:
    assert words in one_line(run("play", "--collection", tmp_path / name))


def test_another_models_collection_is_refused_before_anybody_comes(
    tmp_path: Path, opened: dict[str, Any]
) -> None:
    music = qa.Collection.create(tmp_path / "music.lance", qa.load())
    other = random_checkpoint(tmp_path / "other", width=32, encoder_layers=1, lm_layers=1)
    said = one_line(run("play", "--collection", music.path, "--model", other))
    assert "holds vectors of another embedding spec" in said
    assert not opened
    assert run("play", "--collection", music.path).returncode == 0
    assert Path(opened["collection"]) == music.path


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(minutes: str) -> None:
    assert "use a number greater than 0" in one_line(run("play", f"--max-minutes={minutes}"))

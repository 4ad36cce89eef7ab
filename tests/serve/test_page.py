"""The lines of docs/serve.md, as they are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from qwen_audio.serve.launch import RunningServer, launch_server

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model)
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the recordings that the page names."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name in ("song.flac", "a.flac", "b.flac"):
        (tmp_path / name).symlink_to(ROOT / "examples" / "djembe.flac")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language: str, server: RunningServer) -> list[str]:
    """The code in one language, for the address of a server."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    address = server.url.removeprefix("http://").rstrip("/")
    return [block.replace("localhost:8000", address) for block in found]


@pytest.mark.skipif(None in map(shutil.which, ("bash", "curl", "base64")), reason="needs curl")
def test_the_lines_of_the_page(
    server: RunningServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = blocks("sh", server)
    done = [subprocess.run(["bash", "-ec", each], capture_output=True) for each in commands]
    assert {each.returncode for each in done} == {0}
    answer = json.loads(done[0].stdout)
    assert "guitar" in answer["choices"][0]["message"]["content"]
    assert (folder / "states.safetensors").stat().st_size > 400_000
    values: dict[str, Any] = {}
    for program in blocks("py", server):
        exec(program, values)
    assert "guitar" in capsys.readouterr().out
    assert len(values["vector"].data[0].embedding) == 384
    assert values["load_file"]("states.safetensors")["encoder.2/vectors"].shape == (260, 384)
    values["client"].close()
    values["model"].close()

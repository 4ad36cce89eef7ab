"""The commands and Python lines of docs/probe.md run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from labelled_recordings import write_manifest, write_tones
from qwen_audio.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "probe.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path / "labels.csv", write_tones(tmp_path))
    (console,) = re.findall(r"```console\n(.*?)```", PAGE, re.S)
    lines = [line[2:] for line in console.splitlines() if line.startswith("$ ")]
    assert len(lines) == 3
    for line in lines[1:]:  # the first asks for every tap and label: test_probing.py does
        assert main(shlex.split(line)[1:]) == 0, line
    assert "mean+std" in capsys.readouterr().out
    assert (tmp_path / "probe" / "depth.html").is_file()
    python, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.S)  # others need mteb, HEAR, X-ARES
    exec(compile(python, "docs/probe.md", "exec"), {})

"""The commands and Python lines of docs/probe.md run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from labelled_recordings import write_manifest, write_tones
from qwen_audio.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "probe.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path / "labels.csv", write_tones(tmp_path))
    console = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.S))
    lines = [line[2:] for line in console.splitlines() if line.startswith("$ ")]
    assert len(lines) == 4
    for line in lines[1:]:  # the first asks for every tap and label: test_probing.py does
        command, _, filter_ = line.partition(" | ")
        assert main(shlex.split(command)[1:]) == 0, line
        printed = capsys.readouterr()
        assert ("level=classes for classes" in printed.err) == ("--target pitch" not in line)
        assert ("mean+std" in printed.out) == ("mean+std" in line)
        if filter_ and shutil.which("jq"):
            filtered = subprocess.run(
                shlex.split(filter_), input=printed.out, text=True, check=True, capture_output=True
            )
            assert filtered.stdout.startswith('"mel","logistic",')
    assert (tmp_path / "probe" / "depth.html").is_file()
    python, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.S)  # others need mteb, HEAR, X-ARES
    exec(compile(python, "docs/probe.md", "exec"), {})

"""`qwen-audio plot`: plots, pages and numbers; the commands and code of docs/plots.md."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import qwen_audio as qa
from commands import run
from qwen_audio.cli.main import main
from qwen_audio.cli.plot import PANELS

ROOT = Path(__file__).parents[2]
RATE = 16_000


@pytest.mark.slow
def test_plots_by_options(folder: Path) -> None:
    done = run("plot", "0.wav", "gone.wav", "1.wav", "--panel", "waveform", "--panel", "novelty")
    assert done.returncode == 1
    assert "gone.wav" in done.stderr
    assert done.stderr.endswith("1 of 3 files failed\n")
    for number in range(2):
        assert f"{number}.audio_tower.png: audio_tower, sections begin at (s): " in done.stdout
        assert (folder / f"{number}.audio_tower.png").is_file()
    data = json.loads(
        run("plot", "0.wav", "--tap", "lm.1", "-o", "x.npz", "--kernel", "1", "--json").stdout
    )
    assert data["tap"] == "lm.1"
    assert data["kernel_seconds"] == 1
    assert np.load("x.npz")["rows"].shape == (50, qa.load().dimensions.lm_width)
    assert run("plot", "0.wav", "--html", "--panel", "norms", "--depth").returncode == 0
    assert "L2 norm" in (folder / "0.audio_tower.html").read_text(encoding="utf-8")
    layers = run("plot", "0.wav", "1.wav", "--layers", "-o", "layers.csv")
    assert "taps over 2 recordings" in layers.stdout
    assert (folder / "layers.csv").read_text(encoding="utf-8").startswith("tap,mel,encoder.0")


def test_help_names_every_panel(folder: Path) -> None:
    with pytest.raises(qa.OptionError, match=f"a View has {', '.join(PANELS)}$"):
        qa.plot(qa.load().view("0.wav"), ["no such panel"])
    assert ",".join(PANELS) in run("plot", "--help").stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0.wav", "--panel", "spectrum"), "a View has waveform"),
        (("0.wav", "--tap", "encoder.99"), "encoder.99"),
        (("0.wav", "--html", "-o", "a.png"), "a page's name ends in .html"),
        (("0.wav", "1.wav", "-o", "a.png"), "name an existing folder"),
        (("0.wav", "0.flac"), "0.wav, 0.flac would be written to one file, 0.audio_tower.png: "),
        (("0.wav", "-o", "a.npz", "--theme", "dark"), "do nothing for a.npz"),
        (("0.wav", "-o", "a.gif"), "the suffix decides the format"),
        (("0.wav", "--layers", "--tap", "mel"), "--tap does nothing with --layers"),
        (("0.wav", "--prompt", "What?"), "only the language model"),
        (("0.wav", "--kernel", "9"), "--kernel 9"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("plot", *arguments)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(folder.glob("*.png"))


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
def test_docs_plots_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "plots.md").read_text(encoding="utf-8")
    lines = [line[2:] for line in page.splitlines() if line.startswith("$ qwen-audio")]
    assert len(lines) >= 6
    for line in lines:
        _, *arguments = shlex.split(line, comments=True)
        expanded = [
            p for a in arguments for p in (sorted(map(str, Path().glob(a))) if "*" in a else [a])
        ]
        assert main(expanded) == 0, line
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(block, "plots.md", "exec"), {})

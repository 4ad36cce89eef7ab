"""`qwen-audio lens`: tables, JSON and plots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qwen_audio as qa
from commands import run
from qwen_audio.cli.lens import PANELS

RATE = 16_000


@pytest.mark.slow
def test_tables_and_plots(folder: Path) -> None:
    done = run("lens", "0.wav", "--token", "piano", "--token", "qzwv", "--nearest", "-o", "a.png")
    assert done.returncode == 0
    for text in (
        "0.wav: most likely next token",
        "lm.0",
        "0.0–0.1 s",
        "after the text",
        "piano: most likely",
    ):
        assert text in done.stdout
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    model = qa.load()
    answer = model.describe("0.wav", max_new_tokens=1).strip()
    data = json.loads(run("lens", "0.wav", "--span", "last", "--tap", "lm.-1", "--json").stdout)
    assert data["taps"] == [str(model.taps[-2])]
    (row,) = data["rows"]
    assert row["word_1"].strip() == answer
    assert run("lens", "0.wav", "1.wav", "-o", ".", "--panel", "words").returncode == 0
    assert {path.name for path in folder.glob("*.lens.png")} == {"0.lens.png", "1.lens.png"}


def test_help_names_every_panel(folder: Path) -> None:
    with pytest.raises(qa.OptionError, match=f"a LogitLens has {', '.join(PANELS)}$"):
        qa.plot(qa.load().lens("0.wav"), ["no such panel"])
    assert ",".join(PANELS) in run("lens", "--help").stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0.wav", "--theme", "dark"), "are for plots"),
        (("0.wav", "--token", ""), "is no word"),
        (("0.wav", "--tap", "mel"), "mel has no logits"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("lens", *arguments)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(folder.glob("*.png"))

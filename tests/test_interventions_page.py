"""The page on scores and interventions: its code runs as written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from qwen_audio.cli.main import main
from test_readme import arguments_of, blocks, folder  # noqa: F401 (a fixture)

PAGE = (Path(__file__).parent.parent / "docs" / "interventions.md").read_text(encoding="utf-8")
LABELS = "guitar\tA solo acoustic guitar plays\ndrums\tDrums play\nSomeone is speaking\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.errors.ScoreWarning")
def test_the_page_runs(folder: Path) -> None:  # noqa: F811
    names: dict[str, Any] = {}
    for block in blocks("python", PAGE):
        exec(compile(block, "interventions.md", "exec"), names)
    assert names["result"].labels == ("guitar", "drums", "speech")
    (folder / "labels.txt").write_text(LABELS, encoding="utf-8")
    for line in blocks("sh", PAGE)[0].splitlines():
        assert main(arguments_of(shlex.join(shlex.split(line, comments=True)), folder)) == 0, line
    assert (folder / "scores.csv").is_file()
    assert (folder / "guitar.png").is_file()

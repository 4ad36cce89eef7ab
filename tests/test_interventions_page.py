"""The page on scores, interventions and attribution: its code and commands run as written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from qwen_audio.cli.main import main
from test_readme import arguments_of, blocks, folder  # noqa: F401 (a fixture)

PAGE = (Path(__file__).parent.parent / "docs" / "interventions.md").read_text(encoding="utf-8")
(CLIPS,), (CLASSES,) = blocks("csv", PAGE), blocks("json", PAGE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.errors.ScoreWarning")
def test_the_python_runs(folder: Path) -> None:  # noqa: F811
    (folder / "clips.csv").write_text(CLIPS, encoding="utf-8")
    names: dict[str, Any] = {}
    for block in blocks("python", PAGE):
        exec(compile(block, "interventions.md", "exec"), names)
    assert names["result"].labels == ("guitar", "drums", "speech")
    assert names["occlusion"].difference > 0
    assert (names["saliency"] > 0).any()


@pytest.mark.slow
def test_the_commands_run(folder: Path) -> None:  # noqa: F811
    (folder / "labels.json").write_text(CLASSES, encoding="utf-8")
    (folder / "clips.csv").write_text(CLIPS, encoding="utf-8")
    lines = [line for block in blocks("sh", PAGE) for line in block.splitlines()]
    assert len(lines) == 9
    for line in lines:
        assert main(arguments_of(shlex.join(shlex.split(line, comments=True)), folder)) == 0, line
    for name in (
        "scores.csv",
        "djembe.png",
        "trace.png",
        "ablation.csv",
        "map.png",
        "map.csv",
        "reliability.png",
    ):
        assert (folder / name).is_file()

"""The README's commands and code run as written; its links have targets."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qwen_audio.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return [b.strip() for b in re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)]


def arguments_of(line: str, folder: Path) -> list[str]:
    """A command's arguments, with the patterns of files replaced as a shell does."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "qwen-audio"
    return [p for a in arguments for p in (map(str, folder.glob(a)) if "*" in a else [a])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded_once: None) -> Path:
    """A folder with the examples, in which the README's commands can write."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_quick_start_is_two_commands() -> None:
    describe, test = blocks("sh")[:2]
    assert re.fullmatch(r"pip install uv && uv run --no-dev qwen-audio describe \S+", describe)
    assert (ROOT / describe.split()[-1]).is_file()
    assert test == "pip install uv && uv run pytest"


@pytest.mark.slow
def test_the_first_command_describes(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = blocks("sh")[0].split("qwen-audio ")[1].split()
    arguments[-1] = str(ROOT / arguments[-1])
    assert main(arguments) == 0
    assert len(capsys.readouterr().out.split()) > 3


@pytest.mark.slow
def test_the_python_blocks_run(folder: Path) -> None:
    *local_blocks, hub_block = blocks("python")
    assert len(local_blocks) == 3
    for block_lines in local_blocks:
        exec(compile(block_lines, "README", "exec"), {})
    assert 'load("Qwen/Qwen2-Audio-7B-Instruct"' in hub_block  # not reachable from a test


@pytest.mark.slow
def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block_lines = [line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ ")]
    assert len(block_lines) == 6
    for line in block_lines:
        assert main(arguments_of(line, folder)) == 0, line
    assert (folder / "vectors.npz").is_file()
    assert "lm.norm" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_on_embeddings_runs(folder: Path) -> None:
    page = (ROOT / "docs" / "embeddings.md").read_text(encoding="utf-8")
    use, short, load = (compile(text, "embeddings.md", "exec") for text in blocks("python", page))
    exec(use, {})
    names: dict[str, Any] = {}
    exec(short, names)
    assert names["seconds"] == pytest.approx([2.5, 2.5, 0.2], abs=1e-3)
    assert len(names["long_enough"]) == 2
    for line in blocks("sh", page)[0].splitlines():
        assert main(arguments_of(line, folder)) == 0, line
    exec(load, {})


COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_on_commands_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_jq, captions = blocks("sh", COMMANDS)
    for line in captions.splitlines():
        assert main([*arguments_of(line, folder), "--max-new-tokens", "2"]) == 0, line
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"captions.csv", "captions.jsonl", "guitar.srt", "guitar.vtt"} <= names
    capsys.readouterr()
    for line in with_jq.splitlines():
        command, program = line.split(" | jq ")
        fewer = ["--max-new-tokens", "2"] if " describe " in command else []
        assert main([*arguments_of(command, folder), *fewer]) == 0, line
        printed = capsys.readouterr().out
        for row in printed.splitlines():
            assert isinstance(json.loads(row), dict)
            for key in re.findall(r"\.([a-z_]+)", program):
                assert f'"{key}":' in row, line
        if shutil.which("jq"):
            subprocess.run(["jq", *shlex.split(program)], input=printed, text=True, check=True)
    assert printed == ""  # no failures: no lines


HOWTO = (ROOT / "docs" / "howto.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("python", HOWTO))))
def test_the_tasks_of_the_how_to_page_run(number: int, folder: Path) -> None:
    exec(compile(blocks("python", HOWTO)[number], "howto.md", "exec"), {})


def test_every_link_has_a_target() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), (page.name, link)


def test_every_page_of_docs_is_linked() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)", README))
    assert linked == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


def test_versions_are_pinned_and_no_lock_file_is_kept() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = {pin.split("==")[0] for pin in project["tool"]["uv"]["constraint-dependencies"]}
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    assert {re.split(r"[\[<>=~]", requirement)[0] for requirement in wanted} <= pinned
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()

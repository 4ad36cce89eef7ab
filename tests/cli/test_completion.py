"""`qwen-audio completion`: scripts for bash, zsh and fish."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from commands import run
from qwen_audio.cli.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_knows_commands_and_options(shell: str) -> None:
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("describe", "collection", "follow-links", "known-failures"):
        assert word in done.stdout
    assert {"bash": "complete ", "zsh": "#compdef", "fish": "complete -c qwen-audio"}[
        shell
    ] in done.stdout
    syntax = [shell, "--no-execute" if shell == "fish" else "-n"]
    if shutil.which(shell):
        assert not subprocess.run(syntax, input=done.stdout, text=True, check=False).returncode


def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    (function,) = re.findall("complete .*-F ([a-z_]+) qwen-audio", script.read_text())
    program = f'source "$1"; COMP_WORDS=(qwen-audio encode --res); COMP_CWORD=2; {function}; '
    program += 'echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", program, "bash", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "--resume"


def test_other_shells_are_refused() -> None:
    assert run("completion", "csh").returncode == 2

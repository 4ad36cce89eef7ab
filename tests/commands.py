"""Run `qwen-audio` in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from qwen_audio.cli.main import main

FAST_IMPORT = """
from qwen_audio.cli.stub_imports import fast_start
with fast_start():
    import qwen_audio as qa
    from qwen_audio.api import model
"""
"""First lines of a program in a process of its own: as the command line, two seconds faster."""


class CommandResult(NamedTuple):
    """Exit status and output of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path) -> CommandResult:
    """Run `qwen-audio` with these arguments in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # raised by argparse for --help and invalid arguments
            code = int(exit_.code or 0)
    return CommandResult(code, out.getvalue(), err.getvalue())


def run_process(*arguments: str | Path) -> CommandResult:
    """Run it in a process of its own, without the type checks that pytest adds."""
    command = [sys.executable, "-m", "qwen_audio", *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, timeout=300, check=False)
    return CommandResult(completed.returncode, completed.stdout.decode(), completed.stderr.decode())

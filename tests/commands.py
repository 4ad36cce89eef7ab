"""`qwen-audio`, run in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from qwen_audio.cli.main import main


class Done(NamedTuple):
    """Exit status and output of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path) -> Done:
    """`qwen-audio` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # how argparse ends --help and wrong arguments
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def run_process(*arguments: str | Path) -> Done:
    """The same in a process of its own, without the type checks that pytest adds."""
    command = [sys.executable, "-m", "qwen_audio.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

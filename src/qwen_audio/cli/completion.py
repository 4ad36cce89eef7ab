"""`qwen-audio completion`: scripts with which shells complete commands, options and files."""

from __future__ import annotations

import argparse
from typing import Any

from .console import print_text
from .options import add_command

__all__ = ["SHELLS", "add_parser"]

SHELLS = ("bash", "zsh", "fish")


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "completion",
        run,
        "Print a script that completes commands and options in a shell.",
        'As in `eval "$(qwen-audio completion bash)"` in ~/.bashrc.',
    )
    parser.add_argument("shell", choices=SHELLS, help="its output is for this shell")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    print_text(shtab.complete(options.program, options.shell))
    return 0

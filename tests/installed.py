"""Run commands and expressions with the installed package; prints a JSON list of their outcomes.

A program of its own, run by the Python of an environment that has no test tools. Every extra has a
process of its own with a folder of distributions; they are forked, as importing torch takes longer
than everything else.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import re
import signal
import site
import sys
import threading
import traceback
import urllib.request
from pathlib import Path
from typing import Any


def files() -> set[str]:
    """All files and folders below the working directory."""
    return {str(path) for path in Path().rglob("*")}


def run_command(arguments: list[str]) -> dict[str, Any]:
    """One `qwen-audio` command, through the installed entry point."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="qwen-audio")
    main, before, ended = script.load(), files(), threading.Event()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if arguments[0] == "play":
                threading.Thread(target=interrupt_when_open, args=(out, ended)).start()
            status = main(arguments)
        except SystemExit as exit_:
            status = exit_.code
        except Exception:  # noqa: BLE001
            status = traceback.format_exc()
    ended.set()
    return {
        "status": status,
        "output": out.getvalue(),
        "error": err.getvalue(),
        "written": sorted(files() - before),
        "torch": "torch" in sys.modules,
    }


def interrupt_when_open(out: io.StringIO, ended: threading.Event) -> None:
    """Load the page whose address a command has printed, count its name, and press Ctrl-C."""
    while not ended.wait(0.1):
        if address := re.search(r"http://\S+", out.getvalue()):
            try:
                page = urllib.request.urlopen(address[0], timeout=60).read()
                out.write(f"{page.count(b'Qwen Audio Playground')} times its name\n")
            finally:
                os.kill(os.getpid(), signal.SIGINT)
            return


def evaluate(expression: str) -> str:
    """The type of an expression's value, or its error."""
    try:
        return type(eval(expression, NAMES)).__name__
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def view() -> Any:
    """Something to plot."""
    return qa.load().view("tones/0.wav", tap="mel")


def module(name: str) -> Any:
    """A module of the package."""
    return importlib.import_module(f"qwen_audio.{name}")


def no_points() -> Any:
    """The points of an empty map."""
    return importlib.import_module("numpy").zeros((0, 2), "float32")


qa = importlib.import_module("qwen_audio")
NAMES = {"qa": qa, "view": view, "module": module, "no_points": no_points}
"""What expressions may use."""


def in_a_process(packages: str, folder: str, steps: list[Any]) -> list[Any]:
    """The outcomes of steps in a folder, with more distributions."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        with contextlib.suppress(BaseException), os.fdopen(writer, "w") as pipe:
            site.addsitedir(packages)
            os.chdir(folder)
            json.dump([evaluate(s) if isinstance(s, str) else run_command(s) for s in steps], pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        outcomes: list[Any] = json.load(pipe)
    os.wait()
    return outcomes


if __name__ == "__main__":
    outcomes = []
    for plans in json.load(sys.stdin):
        outcomes.append([in_a_process(*plan) for plan in plans])
        with module("cli.stub_imports").fast_start():
            module("api.model")  # for the next plans
    json.dump(outcomes, sys.stdout)

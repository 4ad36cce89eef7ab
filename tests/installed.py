"""Run commands and expressions with the installed package, in one process.

A program of its own, run by the Python of an environment that has no test tools. It reads stages
on standard input, a JSON list: folder of packages, working directory, and steps. The outcome of
each step is written as a line of JSON to the file that is its argument. The packages of every stage
are added to those of the one before, as if an extra had been installed in the meantime. It starts
no processes. A step that hangs ends it, with the stacks of all threads on standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import site
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

STEP_SECONDS = 100
"""Until a step hangs: twenty times what the longest takes on a busy machine."""

COMMAND = "qwen-audio"
PAGES = {"play": ("", "Qwen Audio Playground"), "serve": ("docs", "qwen-audio serve")}
"""Commands that serve pages: the path of one, and what it says."""


def run_command(arguments: list[str]) -> dict[str, Any]:
    """One `qwen-audio` command, through the installed entry point."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=COMMAND)
    main, before, ended = script.load(), files(), threading.Event()
    with captured(sys.stdout) as out, captured(sys.stderr) as err:
        if arguments[0] in PAGES:
            page = PAGES[arguments[0]]
            threading.Thread(target=interrupt_when_open, args=(out, ended, *page)).start()
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = exit_.code
        except BaseException:  # noqa: BLE001 (KeyboardInterrupt too)
            status = traceback.format_exc()
        ended.set()
    return {
        "status": status,
        "output": content(out),
        "error": content(err),
        "written": sorted(files() - before),
        "torch": "torch" in sys.modules,
    }


def files() -> set[str]:
    """All files and folders below the working directory."""
    return {str(path) for path in Path().rglob("*")}


@contextlib.contextmanager
def captured(stream: IO[str]) -> Iterator[IO[bytes]]:
    """A file of all that is written to standard output or error, by compiled libraries too."""
    stream.flush()
    descriptor, file = stream.fileno(), tempfile.TemporaryFile()  # noqa: SIM115 (is returned)
    original = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        yield file
    finally:
        stream.flush()
        os.dup2(original, descriptor)
        os.close(original)


def content(file: IO[bytes]) -> str:
    """What has been written to a captured stream so far, without moving its position."""
    return os.pread(file.fileno(), 1_000_000, 0).decode()


def interrupt_when_open(out: IO[bytes], ended: threading.Event, path: str, name: str) -> None:
    """Load a page at the address that a command prints, say if it has its name; press Ctrl-C."""
    while not (address := re.search(r"http://\S+", content(out))):
        if ended.wait(0.02):
            return
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        page = local.open(f"{address[0]}{path}", timeout=STEP_SECONDS / 2).read().decode()
        os.write(sys.stdout.fileno(), f"{name in page}\n".encode())
        main_thread = threading.main_thread().ident or 0
        while sys._current_frames()[main_thread].f_code.co_name != "wait":  # from now on, expected
            time.sleep(0.02)
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def evaluate(expression: str) -> str:
    """An expression's value if it is text, else its type, or its error."""
    try:
        value = eval(expression, NAMES)
        return value if isinstance(value, str) else type(value).__name__
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def view() -> Any:
    """Something to plot."""
    return qa.load().view("tones/0.wav", tap="mel")


def module(name: str) -> Any:
    """A module of the package."""
    return importlib.import_module(f"qwen_audio.{name}")


def points(count: int) -> Any:
    """Points of a map."""
    return importlib.import_module("numpy").zeros((count, 2), "float32")


def frame() -> Any:
    """Embeddings as a table."""
    index = module("inference.row_index").RowIndex.concatenate([])
    return module("inference.data_frame").to_pandas(index, "mel", points(0))


def array() -> Any:
    """Embeddings with coordinates."""
    index = module("inference.row_index").RowIndex.concatenate([])
    return module("inference.data_array").to_xarray(index, "mel", points(0))


def names() -> list[Any]:
    """What all public names are."""
    return [getattr(qa, name) for name in dir(qa)]


def importable(names: list[str]) -> str:
    """Those of these modules that can be imported."""
    return " ".join(name for name in names if importlib.util.find_spec(name))


faulthandler.dump_traceback_later(STEP_SECONDS, exit=True)
qa = importlib.import_module("qwen_audio")
NAMES = {"qa": qa, "view": view, "module": module, "points": points, "names": names}
NAMES |= {"importable": importable, "frame": frame, "array": array}
"""What expressions may use."""


def main(outcomes: IO[str], stacks: IO[str]) -> None:
    """Run the steps of every stage."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background have none
    for packages, folder, steps in json.load(sys.stdin):
        site.addsitedir(packages)
        importlib.invalidate_caches()
        os.chdir(folder)
        for step in steps:
            faulthandler.dump_traceback_later(STEP_SECONDS, exit=True, file=stacks)
            outcome = evaluate(step) if isinstance(step, str) else run_command(step)
            print(json.dumps(outcome), file=outcomes, flush=True)
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    with (
        Path(sys.argv[1]).open("w", encoding="utf-8") as outcomes,
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as stacks,
    ):
        main(outcomes, stacks)
    os._exit(0)  # not waiting for threads of servers and databases

"""Programs in processes of their own, forked from one that has imported torch and the package.

Importing them takes a process three seconds. They are imported as the command line does, without
the type checks of tests; nothing is computed before a program starts, and by one thread in it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from commands import FAST_IMPORT

_STARTER = f"""
{FAST_IMPORT}
import contextlib, json, os, socket, sys

def run(program, arguments):
    sys.argv[1:] = arguments
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
    exec(compile(program, "program", "exec"), {{"__name__": "__main__"}})

starter = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, streams, _, _ = socket.recv_fds(starter, 1_000_000, 4)
    if message and os.fork():
        for stream in streams:
            os.close(stream)
        continue
    break
if message:
    child = os.fork()
    for number, stream in enumerate(streams[:3]):
        if not child:
            os.dup2(stream, number)
        os.close(stream)
    if not child:
        run(*json.loads(message))
    else:
        os.write(streams[3], b"%d\\n" % child)
        os.write(streams[3], b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
else:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
"""
"""Receives programs with their standard streams and one on which to report: the process's id, then
its exit status."""


@functools.cache
def _starter() -> socket.socket:
    """The process that forks itself, started by the first program."""
    ours, its = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(its.fileno())],
        pass_fds=[its.fileno()],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
    )
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class ForkedProcess:
    """A running Python program. Leaving its context ends it."""

    def __init__(self, program: str, *arguments: str | Path) -> None:
        message = json.dumps([program, [*map(str, arguments)]])
        (stdin, to), (of, stdout), (report, status) = (os.pipe() for _ in range(3))
        self.stdin, self.stdout = os.fdopen(to, "w"), os.fdopen(of)
        self._report = os.fdopen(report)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (until the process is forgotten)
        socket.send_fds(
            _starter(), [message.encode()], [stdin, stdout, self._errors.fileno(), status]
        )
        for descriptor in (stdin, stdout, status):
            os.close(descriptor)
        self.id = int(self._report.readline())
        self._seen, self._running = 0, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            self.kill()
            self.finish()

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.id, signal.SIGKILL)

    def new_errors(self) -> str:
        """What it has written to standard error since the last call."""
        errors = os.pread(self._errors.fileno(), 2**20, self._seen)
        self._seen += len(errors)
        return errors.decode()

    def finish(self) -> tuple[int, str, str]:
        """Wait until it ends: its exit status, and what it wrote and hasn't been read."""
        self.stdin.close()
        output, status = self.stdout.read(), int(self._report.readline())
        self.stdout.close()
        self._report.close()
        self._running = False
        with self._errors as errors:
            errors.seek(0)
            return status, output, errors.read()


def run_forked(program: str, *arguments: str | Path) -> str:
    """What a program writes to standard output."""
    status, output, errors = ForkedProcess(program, *arguments).finish()
    assert status == 0, errors
    return output

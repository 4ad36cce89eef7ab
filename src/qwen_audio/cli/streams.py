"""Standard streams and signals in any state: closed or full streams, a pipe that ends, SIGTERM.

What can't be written to standard output is an error. What can't be written to standard error is
not: the exit status says the same.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from qwen_audio.errors import QwenAudioError

__all__ = ["OutputError", "Terminated", "signals_end_cleanly", "standard_streams"]

_UNUSABLE = (os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)
"""How a closed descriptor is opened, so that reading from 0 and writing to 1 and 2 fail."""
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class OutputError(QwenAudioError):
    """Standard output can't be written to.

    Attributes:
        is_pipe: whether it is a pipe whose reader, such as `head`, has ended.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"standard output can't be written ({error.strerror}): check where it goes"
        )
        self.is_pipe = isinstance(error, BrokenPipeError)


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Descriptor(io.FileIO):
    """A standard stream's bytes; after the first error, nothing more is written.

    Args:
        on_error: called with that error, which it may raise in another form.
    """

    def __init__(self, number: int, on_error: Callable[[OSError], object]) -> None:
        super().__init__(number, "w", closefd=False)
        self._on_error, self._failed = on_error, False

    def write(self, data: Any) -> Any:
        """Write some bytes; returns how many."""
        if not self._failed:
            try:
                return super().write(data)
            except OSError as error:
                self._failed = True
                self._on_error(error)
        return memoryview(data).nbytes


def _raise_output_error(error: OSError) -> None:
    raise OutputError(error) from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Within it `sys.stdin`, `sys.stdout` and `sys.stderr` can be used in any state.

    Standard output raises OutputError where writing or flushing fails; standard error ignores it.
    Characters that an encoding lacks become question marks. Closed descriptors stay unusable, but
    no file that is opened later gets their number.
    """
    streams = (sys.stdin, sys.stdout, sys.stderr)
    for number, flags in enumerate(_UNUSABLE):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _usable(sys.stdout, 1, _raise_output_error)
    sys.stderr = _usable(sys.stderr, 2, lambda _: None)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams


def _usable(stream: TextIO | None, number: int, on_error: Callable[[OSError], object]) -> TextIO:
    """A stream to the same descriptor; or itself, if it isn't one of the operating system's."""
    settings: dict[str, Any] = {"encoding": "utf-8", "line_buffering": number == 2}
    if stream is not None:
        if not isinstance(stream, io.TextIOWrapper):
            return stream
        stream.reconfigure(errors="replace")
        if not isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
            return stream
        stream.flush()
        number = stream.fileno()
        settings["encoding"] = stream.encoding
        settings["line_buffering"] = stream.line_buffering or stream.write_through
    buffer = io.BufferedWriter(_Descriptor(number, on_error))
    return io.TextIOWrapper(buffer, errors="replace", **settings)


@contextmanager
def signals_end_cleanly() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise Terminated, as SIGINT raises KeyboardInterrupt.

    So temporary files are removed. A signal that is ignored stays so (SIGHUP under `nohup`), and a
    second one ends the process at once.
    """

    def end(number: int, _: object) -> None:
        for each in replaced:
            signal.signal(each, signal.SIG_DFL)
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    replaced = [each for each in _SIGNALS if before[each] in defaults]
    for each in replaced:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in replaced:
            signal.signal(each, before[each])

"""qwen-audio: parse, call, print. What it prints comes from the Python API; errors are one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from qwen_audio.cli import collection as collecting
from qwen_audio.cli import play as playing
from qwen_audio.cli import plot as showing
from qwen_audio.cli import probe as probe_command
from qwen_audio.errors import QwenAudioError

from .arguments import build_parser
from .console import (
    print_error,
)
from .describe import _describe, _encode
from .inspect import _inspect, _parity, _taps

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 if anything failed, 2 for a wrong call."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without – or ─ gets ? and no error
            stream.reconfigure(errors="replace")
    runs = {
        "describe": _describe,
        "encode": _encode,
        "inspect": _inspect,
        "taps": _taps,
        "parity": _parity,
        **collecting.RUNS,
        **probe_command.RUNS,
        **playing.RUNS,
        **showing.RUNS,
    }
    options = build_parser(runs).parse_args(arguments)
    try:
        return int(options.run(options))
    except QwenAudioError as error:
        print_error(str(error))
        return 1
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())

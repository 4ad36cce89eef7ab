"""qwen-audio: parse, call, print. What it prints comes from the Python API; errors are one line."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .arguments import build_parser
from .errors import AudioError, OptionError, QwenAudioError

if TYPE_CHECKING:
    from .model import QwenAudio

__all__ = ["main"]

EMBEDDED = "embedded"  # weights.EMBEDDED, which would load torch

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 if anything failed, 2 for a wrong call."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without – or ─ gets ? and no error
            stream.reconfigure(errors="replace")
    runs = {"describe": _describe, "encode": _encode, "inspect": _inspect, "taps": _taps}
    options = build_parser(runs).parse_args(arguments)
    try:
        return int(options.run(options))
    except QwenAudioError as error:
        _complain(str(error))
        return 1
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130


def _describe(options: argparse.Namespace) -> int:
    model = _load(options)
    sampling = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    live = sys.stdout.isatty() and not options.json and len(options.files) == 1

    def describe(file: str) -> None:
        stream = (lambda text: print(text, end="", flush=True)) if live else None
        text = model.describe(
            file, prompt=options.prompt, stream=stream, **sampling, **_windowing(options)
        )
        if not text.complete:
            _complain(f"{file}: cut off at {options.max_new_tokens} tokens (--max-new-tokens)")
        if options.json:
            answers = [dataclasses.asdict(answer) for answer in text.answers]
            _print_json({"source": file, "text": str(text), "answers": answers})
        elif live:
            print()
        elif len(options.files) > 1:
            print(f"{file}: {text}" if len(text.answers) == 1 else f"{file}:\n{text}")
        else:
            print(text)

    return _each(options.files, describe)


def _encode(options: argparse.Namespace) -> int:
    from .export import check_output, save

    output = check_output(options.output)
    model = _load(options)
    settings = {
        "tap": options.tap,
        "pooling": options.pooling,
        "span": options.span,
        "prompt": options.prompt,
        **_windowing(options),
    }
    spec = model.spec(**settings)
    sources: list[str] = []
    vectors: list[Any] = []

    def encode(file: str) -> None:
        vectors.append(model.encode(file, **settings))
        sources.append(file)

    status = _each(options.files, encode)
    if not vectors:
        _complain(f"nothing could be encoded, so {output} was not written")
        return status
    save(output, sources, vectors, spec)
    summary = {
        "output": str(output),
        "sources": sources,
        "shapes": [list(vector.shape) for vector in vectors],
        "spec": dataclasses.asdict(spec),
        "fingerprint": spec.fingerprint,
    }
    if options.json:
        _print_json(summary)
    else:
        shapes = " ".join("×".join(map(str, vector.shape)) for vector in vectors[:3])
        more = " …" * (len(vectors) > 3)
        print(
            f"{output}: {len(vectors)} × {spec.tap}, {spec.pooling} over {spec.span}, "
            f"{shapes}{more}, spec {spec.fingerprint}"
        )
    return status


def _inspect(options: argparse.Namespace) -> int:
    model = _load(options)
    from .tables import inspection_tables

    def inspect(file: str) -> None:
        story = model.inspect(file, prompt=options.prompt, **_windowing(options))
        if options.json:
            _print_json(dataclasses.asdict(story))
        else:
            for table in inspection_tables(story):
                _print_table(table)

    return _each(options.files, inspect)


def _taps(options: argparse.Namespace) -> int:
    from .fast_start import fast_start

    with fast_start():
        from .weights import Checkpoint
    from .tables import taps_tables

    if options.checkpoint and options.model:
        raise OptionError(f"taps {options.checkpoint} --model {options.model}: name one model")
    source = options.checkpoint or options.model
    _say_embedded(source)
    checkpoint = Checkpoint(source or EMBEDDED, options.revision)
    geometry = checkpoint.geometry
    rows = [
        {
            "tap": str(tap),
            "width": geometry.width(tap),
            "rate_hz": tap.rate_hz,
            **dataclasses.asdict(checkpoint.cost(tap)),
        }
        for tap in geometry.taps()
    ]
    text = dataclasses.asdict(checkpoint.cost(None))
    if options.json:
        _print_json({"model": checkpoint.name, "taps": rows, "text": text})
        return 0
    for table in taps_tables(checkpoint.name, rows, text):
        _print_table(table)
    return 0


def _each(files: Sequence[str], work: Callable[[str], None]) -> int:
    """Do every file; say which failed and why; 1 if any did."""
    if files.count("-") > 1:
        raise OptionError("- is given more than once, but standard input can be read only once")
    failed = 0
    for file in _progress(files):
        try:
            work(file)
        except AudioError as error:  # this file's; any other error would be every file's
            failed += 1
            _complain(str(error))
    if failed and len(files) > 1:
        _complain(f"{failed} of {len(files)} files failed")
    return int(failed > 0)


def _progress(files: Sequence[T]) -> Iterator[T]:
    """A bar on a terminal, when there is more than one thing to wait for."""
    if len(files) < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield from files
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(files, console=Console(stderr=True), transient=True)


def _load(options: argparse.Namespace) -> QwenAudio:
    from .fast_start import fast_start

    with fast_start():
        from .model import load
    # The hub's retries are its own affair: what comes of them is one line of ours.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    model = load(
        options.model or EMBEDDED,
        device=options.device,
        dtype=options.dtype,
        revision=options.revision,
    )
    _say_embedded(options.model)
    return model


def _say_embedded(model: str | None) -> None:
    if model is None:
        print(
            "qwen-audio: using the small embedded checkpoint "
            "(--model Qwen/Qwen2-Audio-7B-Instruct for the real one)",
            file=sys.stderr,
        )


def _windowing(options: argparse.Namespace) -> dict[str, Any]:
    given = {"window_seconds": options.window, "hop_seconds": options.hop}
    return {name: seconds for name, seconds in given.items() if seconds is not None}


def _print_table(table: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def _print_json(data: Any) -> None:
    print(json.dumps(data, ensure_ascii=False))


def _complain(line: str) -> None:
    print(f"qwen-audio: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

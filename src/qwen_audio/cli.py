"""qwen-audio: parse, call, print. What it prints comes from the Python API; errors are one line."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import collecting, playing, probe_command, showing
from .arguments import build_parser
from .errors import AudioError, OptionError, QwenAudioError
from .terminal import (
    EMBEDDED,
    check_stdin,
    complain,
    each,
    load_model,
    progress,
    report_failures,
    say,
    say_embedded,
    say_json,
    show_table,
    windowing_of,
)

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
        "certify": _certify,
        **collecting.RUNS,
        **probe_command.RUNS,
        **playing.RUNS,
        **showing.RUNS,
    }
    options = build_parser(runs).parse_args(arguments)
    try:
        return int(options.run(options))
    except QwenAudioError as error:
        complain(str(error))
        return 1
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def _describe(options: argparse.Namespace) -> int:
    model = load_model(options)
    sampling = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    live = sys.stdout.isatty() and not options.json and len(options.files) == 1

    def describe(file: str) -> None:
        stream = (lambda text: say(text, end="")) if live else None
        text = model.describe(
            file, prompt=options.prompt, stream=stream, **sampling, **windowing_of(options)
        )
        if not text.complete:
            complain(f"{file}: cut off at {options.max_new_tokens} tokens (--max-new-tokens)")
        if options.json:
            answers = [dataclasses.asdict(answer) for answer in text.answers]
            say_json({"source": file, "text": str(text), "answers": answers})
        elif live:
            say()
        elif len(options.files) > 1:
            say(f"{file}: {text}" if len(text.answers) == 1 else f"{file}:\n{text}")
        else:
            say(text)

    return each(options.files, describe)


def _encode(options: argparse.Namespace) -> int:
    from .export import VectorFile, check_output

    output = check_output(options.output)
    check_stdin(options.files)
    model = load_model(options)
    settings = {
        "tap": options.tap,
        "pooling": options.pooling,
        "span": options.span,
        "prompt": options.prompt,
        **windowing_of(options),
    }
    spec = model.spec(**settings)
    failed = 0
    vectors = model.encode_each(options.files, errors="yield", **settings)
    with VectorFile(output, spec) as file:
        for source, of_source in zip(progress(options.files), vectors, strict=True):
            if isinstance(of_source, AudioError):
                failed += 1
                complain(str(of_source))
            else:
                file.add(source, of_source)
    status = report_failures(failed, len(options.files))
    if not file.sources:
        complain(f"nothing could be encoded, so {output} was not written")
        return status
    summary = {
        "output": str(output),
        "sources": file.sources,
        "shapes": file.shapes,
        "spec": dataclasses.asdict(spec),
        "fingerprint": spec.fingerprint,
    }
    if options.json:
        say_json(summary)
    else:
        shapes = " ".join("×".join(map(str, shape)) for shape in file.shapes[:3])
        more = " …" * (len(file.shapes) > 3)
        say(
            f"{output}: {len(file.sources)} × {spec.tap}, {spec.pooling} over {spec.span}, "
            f"{shapes}{more}, {spec.dtype}, spec {spec.fingerprint}"
        )
    return status


def _inspect(options: argparse.Namespace) -> int:
    model = load_model(options)
    from .tables import inspection_tables

    def inspect(file: str) -> None:
        story = model.inspect(file, prompt=options.prompt, **windowing_of(options))
        if options.json:
            say_json(dataclasses.asdict(story))
        else:
            for table in inspection_tables(story):
                show_table(table)

    return each(options.files, inspect)


def _taps(options: argparse.Namespace) -> int:
    from .fast_start import fast_start

    with fast_start():
        from .compute import resolve_bytes, resolve_device, resolve_dtype
        from .plan import make_plan
        from .weights import Checkpoint
    from .tables import taps_tables

    if options.checkpoint and options.model:
        raise OptionError(f"taps {options.checkpoint} --model {options.model}: name one model")
    source = options.checkpoint or options.model
    say_embedded(source)
    checkpoint = Checkpoint(source or EMBEDDED, options.revision)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, checkpoint.dtype, device)
    memory = resolve_bytes(options.max_memory)
    numbers = str(dtype).removeprefix("torch.")
    geometry = checkpoint.geometry
    rows = [
        {
            "width": geometry.width(tap),
            "rate_hz": tap.rate_hz,
            **dataclasses.asdict(make_plan(checkpoint, tap, dtype, device, memory)),
        }
        for tap in geometry.taps()
    ]
    text = dataclasses.asdict(make_plan(checkpoint, None, dtype, device, memory))
    if options.json:
        say_json(
            {
                "model": checkpoint.name,
                "dtype": numbers,
                "taps": rows,
                "text": text,
            }
        )
        return 0
    for table in taps_tables(f"{checkpoint.name} in {numbers}", rows, text):
        show_table(table)
    return 0


def _certify(options: argparse.Namespace) -> int:
    if options.checkpoint and options.model:
        raise OptionError(f"certify {options.checkpoint} --model {options.model}: name one model")
    options.model = options.checkpoint or options.model
    target = Path(options.output)
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)) or target.is_dir():
        raise OptionError(f"{target} can't be written: name a file in a folder that takes one")
    model = load_model(options)
    from .tables import certificate_tables

    certificate = model.certify(options.audio or None, prompt=options.prompt)
    data = dataclasses.asdict(certificate) | {"holds": certificate.holds}
    try:
        target.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{target} can't be written ({error.strerror or error})") from error
    if options.json:
        say_json(data)
    else:
        for table in certificate_tables(certificate):
            show_table(table)
        say(f"  Saved as {target}.")
    return 0 if certificate.holds else 1


if __name__ == "__main__":
    sys.exit(main())

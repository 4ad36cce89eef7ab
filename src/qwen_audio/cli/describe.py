"""`qwen-audio describe` and `qwen-audio encode`."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from qwen_audio.errors import AudioError

from .console import (
    check_stdin,
    each,
    load_model,
    print_error,
    print_json,
    print_line,
    progress,
    report_failures,
    windowing_of,
)


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
        stream = (lambda text: print_line(text, end="")) if live else None
        text = model.describe(
            file, prompt=options.prompt, stream=stream, **sampling, **windowing_of(options)
        )
        if not text.complete:
            print_error(f"{file}: cut off at {options.max_new_tokens} tokens (--max-new-tokens)")
        if options.json:
            answers = [dataclasses.asdict(answer) for answer in text.answers]
            print_json({"source": file, "text": str(text), "answers": answers})
        elif live:
            print_line()
        elif len(options.files) > 1:
            print_line(f"{file}: {text}" if len(text.answers) == 1 else f"{file}:\n{text}")
        else:
            print_line(text)

    return each(options.files, describe)


def _encode(options: argparse.Namespace) -> int:
    from qwen_audio.api.export import VectorFile, check_output

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
                print_error(str(of_source))
            else:
                file.add(source, of_source)
    status = report_failures(failed, len(options.files))
    if not file.sources:
        print_error(f"nothing could be encoded, so {output} was not written")
        return status
    summary = {
        "output": str(output),
        "sources": file.sources,
        "shapes": file.shapes,
        "spec": dataclasses.asdict(spec),
        "fingerprint": spec.fingerprint,
    }
    if options.json:
        print_json(summary)
    else:
        shapes = " ".join("×".join(map(str, shape)) for shape in file.shapes[:3])
        more = " …" * (len(file.shapes) > 3)
        print_line(
            f"{output}: {len(file.sources)} × {spec.tap}, {spec.pooling} over {spec.span}, "
            f"{shapes}{more}, {spec.dtype}, spec {spec.fingerprint}"
        )
    return status

"""`qwen-audio inspect`, `taps` and `parity`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from qwen_audio.errors import OptionError

from .console import (
    EMBEDDED,
    each,
    load_model,
    print_json,
    print_line,
    say_embedded,
    show_table,
    windowing_of,
)


def _inspect(options: argparse.Namespace) -> int:
    model = load_model(options)
    from .tables import inspection_tables

    def inspect(file: str) -> None:
        story = model.inspect(file, prompt=options.prompt, **windowing_of(options))
        if options.json:
            print_json(dataclasses.asdict(story))
        else:
            for table in inspection_tables(story):
                show_table(table)

    return each(options.files, inspect)


def _taps(options: argparse.Namespace) -> int:
    from .stub_imports import fast_start

    with fast_start():
        from qwen_audio.inference.cost import estimate_cost
        from qwen_audio.models.checkpoint import Checkpoint
        from qwen_audio.weights.device import resolve_bytes, resolve_device, resolve_dtype
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
    geometry = checkpoint.dimensions
    rows = [
        {
            "width": geometry.width(tap),
            "rate_hz": tap.rate_hz,
            **dataclasses.asdict(estimate_cost(checkpoint, tap, dtype, device, memory)),
        }
        for tap in geometry.taps()
    ]
    text = dataclasses.asdict(estimate_cost(checkpoint, None, dtype, device, memory))
    if options.json:
        print_json(
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


def _parity(options: argparse.Namespace) -> int:
    if options.checkpoint and options.model:
        raise OptionError(f"parity {options.checkpoint} --model {options.model}: name one model")
    options.model = options.checkpoint or options.model
    target = Path(options.output)
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)) or target.is_dir():
        raise OptionError(f"{target} can't be written: name a file in a folder that takes one")
    model = load_model(options)
    from .tables import parity_tables

    report = model.check_parity(options.audio or None, prompt=options.prompt)
    data = dataclasses.asdict(report) | {"holds": report.holds}
    try:
        target.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OptionError(f"{target} can't be written ({error.strerror or error})") from error
    if options.json:
        print_json(data)
    else:
        for table in parity_tables(report):
            show_table(table)
        print_line(f"  Saved as {target}.")
    return 0 if report.holds else 1

"""`qwen-audio taps`: the taps of a model and their costs."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from .checks import check_model_options
from .console import print_embedded_notice, print_json, show_table
from .options import (
    EMBEDDED,
    add_command,
    add_compute_options,
    add_model_options,
)

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers, "taps", run, "List every tap with its cost estimate; no weights are read."
    )
    add_model_options(parser)
    add_compute_options(parser)
    parser.add_argument(
        "--inside-layers",
        action="store_true",
        help="also the taps inside decoder layers: lm.K.heads, lm.K.attention, lm.K.mlp",
    )


def run(options: argparse.Namespace) -> int:
    """Print width, rate and cost of every tap, and, as one without a name, of generating text."""
    check_model_options(options)
    from qwen_audio.weights.option_values import resolve_bytes

    from .stub_imports import fast_start

    with fast_start():
        from qwen_audio.inference.cost import estimate_cost
        from qwen_audio.models.checkpoint import Checkpoint
        from qwen_audio.weights.device import resolve_device, resolve_dtype
    from .tables import taps_tables

    print_embedded_notice(options.model)
    checkpoint = Checkpoint(
        options.model or EMBEDDED, options.revision, options.adapter, options.quantize
    )
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, checkpoint.dtype, device)
    memory_bytes = resolve_bytes(options.max_memory)
    dtype_name = str(dtype).removeprefix("torch.")
    quantization = checkpoint.quantization
    numbers = {"dtype": dtype_name} | ({"quantization": quantization} if quantization else {})
    dimensions = checkpoint.dimensions
    rows = [
        {
            "width": None if tap is None else dimensions.width(tap),
            "rate_hz": None if tap is None else dimensions.rate_hz(tap),
            **dataclasses.asdict(estimate_cost(checkpoint, tap, dtype, device, memory_bytes)),
        }
        for tap in (
            *dimensions.taps(inside_layers=options.inside_layers),
            *([None] if dimensions.has_language_model else []),
        )
    ]
    adapter = {} if checkpoint.adapter is None else {"adapter": checkpoint.adapter.name}
    model = {"model": checkpoint.name, **adapter}
    if options.json:
        for row in rows:
            print_json({**model, **numbers, **row})
    else:
        title = f"{' with '.join(model.values())} in {', '.join(reversed(numbers.values()))}"
        text = rows.pop() if dimensions.has_language_model else None
        for table in taps_tables(title, rows, text):
            show_table(table)
    return 0

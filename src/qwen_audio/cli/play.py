"""The command that opens the playground."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from .console import load_model, model_for, print_json, print_line

__all__ = ["RUNS"]


def _play(options: argparse.Namespace) -> int:
    from qwen_audio.playground.launch import check_installed, launch_playground
    from qwen_audio.playground.limits import Limits

    check_installed()
    limits = Limits()
    if options.max_minutes is not None:
        limits = dataclasses.replace(limits, recording_seconds=60 * options.max_minutes)
    if options.collection is None:
        model = load_model(options)
    else:
        from qwen_audio.collection.table import WindowTable

        rows = WindowTable.open(options.collection)
        model = model_for(rows.spec, options)
        rows.check(model.spec(**rows.spec.options))  # otherwise only full-text search would work
    running = launch_playground(
        model,
        options.collection,
        host=options.host,
        port=options.port,
        share=options.share,
        limits=limits,
    )
    if options.json:
        print_json({"url": running.url, "share_url": running.share_url})
    else:
        shared = f", and for everybody at {running.share_url}" if running.share_url else ""
        print_line(f"The playground is open at {running.url}{shared} (Ctrl-C closes it)")
    try:
        running.wait()
    finally:
        running.close()
    return 0


RUNS: dict[str, Callable[[argparse.Namespace], int]] = {"play": _play}

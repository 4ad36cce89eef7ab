"""The command that opens the playground."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from .console import load_model, model_for, print_json, print_line

__all__ = ["RUNS"]


def _play(options: argparse.Namespace) -> int:
    from qwen_audio.playground.launch import check_installed, play
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
        rows.check(model.spec(**rows.spec.options))  # or Find could search by words alone
    playing = play(
        model,
        options.collection,
        host=options.host,
        port=options.port,
        share=options.share,
        limits=limits,
    )
    if options.json:
        print_json({"url": playing.url, "share_url": playing.share_url})
    else:
        shared = f", and for everybody at {playing.share_url}" if playing.share_url else ""
        print_line(f"The playground is open at {playing.url}{shared} (Ctrl-C closes it)")
    try:
        playing.wait()
    finally:
        playing.close()
    return 0


RUNS: dict[str, Callable[[argparse.Namespace], int]] = {"play": _play}

"""The command that opens the playground."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from .console import load_model, model_for, say, say_json

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
        from qwen_audio.collection.table import Rows

        rows = Rows.open(options.collection)
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
        say_json({"url": playing.url, "share_url": playing.share_url})
    else:
        shared = f", and for everybody at {playing.share_url}" if playing.share_url else ""
        say(f"The playground is open at {playing.url}{shared} (Ctrl-C closes it)")
    try:
        playing.wait()
    finally:
        playing.close()
    return 0


RUNS: dict[str, Callable[[argparse.Namespace], int]] = {"play": _play}

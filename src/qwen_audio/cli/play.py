"""`qwen-audio play`: the web playground."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import OptionError, check_extra

from .console import load_collection_model, load_model, print_json, print_line
from .options import add_command, add_compute_options, add_list_option, add_model_options

if TYPE_CHECKING:
    from qwen_audio.playground.limits import Limits

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "play",
        run,
        "Open the playground, a web page, on this machine only.",
        "Needs the extra [playground], and with --collection [collections].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    parser.add_argument(
        "--collection", metavar="C.lance", help="the collection that its search tab searches"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="0.0.0.0 accepts connections from other machines (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="(default: 7860, or the next that is free)"
    )
    add_list_option(
        parser,
        "--allowed-host",
        "NAME",
        "also answer browsers that reach it by this name, as through a reverse proxy",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="also serve it at a public address, through Gradio's servers",
    )
    parser.add_argument(
        "--max-minutes", type=float, metavar="N", help="longest recording (default: 10)"
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="for a public machine: examples and uploads only, and short limits (recordings of a "
        "minute and 10 MB, answers of 64 tokens, 16 waiting requests)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve the playground until interrupted."""
    from qwen_audio.playground.launch import check_installed, launch_playground, listen_for_page
    from qwen_audio.serve.hosts import AllowedHosts

    if options.demo and options.collection is not None:
        raise OptionError(
            "--demo offers visitors examples and uploads only: leave out --collection, or --demo"
        )
    if options.collection is not None:
        names = ("gradio", "fastapi", "matplotlib", "uvicorn", "lancedb", "pyarrow")
        check_extra("a playground with a collection", "playground,collections", *names)
    check_installed()
    limits = _limits(options)
    AllowedHosts(options.host, options.allowed_host or [])  # raises before the model is loaded
    listen_for_page(options.host, options.port).close()
    if options.collection is None:
        model = load_model(options)
    else:
        from qwen_audio.collection.table import WindowTable

        table = WindowTable.open(options.collection)
        model = load_collection_model(table.spec, options)
        table.check(model.spec(**table.spec.options))  # else only full-text search would work
    playground = launch_playground(
        model,
        options.collection,
        host=options.host,
        port=options.port,
        share=options.share,
        allowed_hosts=options.allowed_host or [],
        limits=limits,
    )
    if options.json:
        print_json({"url": playground.url, "share_url": playground.share_url})
    else:
        shared = f", and for everybody at {playground.share_url}" if playground.share_url else ""
        print_line(f"The playground is open at {playground.url}{shared} (Ctrl-C closes it)")
    try:
        playground.wait()
    finally:
        playground.close()
    return 0


def _limits(options: argparse.Namespace) -> Limits:
    """The limits that --demo and --max-minutes ask for.

    Raises:
        OptionError: for both, and a number of minutes that isn't positive.
    """
    from qwen_audio.playground.limits import DEMO_LIMITS, Limits

    if options.max_minutes is None:
        return DEMO_LIMITS if options.demo else Limits()
    if options.demo:
        raise OptionError(
            f"--demo limits recordings to {DEMO_LIMITS.recording_text}: leave out --max-minutes, "
            "or --demo"
        )
    if not 0 < options.max_minutes < math.inf:
        raise OptionError(f"--max-minutes {options.max_minutes:g}: use a number greater than 0")
    return Limits(recording_seconds=60 * options.max_minutes)

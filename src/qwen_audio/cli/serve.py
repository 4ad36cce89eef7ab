"""`qwen-audio serve`: the HTTP API."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
import os
import threading
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import OptionError, check_extra

from .console import (
    load_collection_model,
    load_model,
    print_error,
    print_json,
    print_line,
    print_notice,
)
from .options import add_command, add_compute_options, add_list_option, add_model_options
from .streams import Terminated

if TYPE_CHECKING:
    from qwen_audio import AudioModel
    from qwen_audio.serve.limits import ApiLimits
    from qwen_audio.serve.page import BuildPage

__all__ = ["add_parser"]

_KEY_VARIABLE = "QWEN_AUDIO_API_KEY"
_PAGE_PACKAGES = ("fastapi", "gradio", "matplotlib", "prometheus_client", "uvicorn")


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "serve",
        run,
        "Serve the model to OpenAI's clients: answers, scores, embeddings, hidden states.",
        "Needs the extra [serve].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="0.0.0.0 accepts connections from other machines, with a key (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="(default: 8000, or the next that is free)"
    )
    add_list_option(
        parser,
        "--api-key",
        "KEY",
        f"what clients have to send; also taken from {_KEY_VARIABLE}, which other users can't see",
    )
    add_list_option(
        parser,
        "--allowed-host",
        "NAME",
        "also answer clients that reach it by this name, as through a reverse proxy",
    )
    add_list_option(
        parser,
        "--allow-media-host",
        "HOST",
        "fetch recordings that requests name by their address from this host, HOST or HOST:PORT",
    )
    parser.add_argument(
        "--playground",
        action="store_true",
        help="also the playground's page, at the same address; needs the extra [playground], too",
    )
    parser.add_argument(
        "--max-minutes", type=float, metavar="N", help="longest recording (default: 10)"
    )
    parser.add_argument(
        "--collection", metavar="C.lance", help="the collection that clients may search"
    )
    parser.add_argument(
        "--transcribe-prompt",
        metavar="TEXT",
        help="what asks the model for a transcription (default: for models of speech recognition "
        "what they are trained with; others don't transcribe)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; then let requests end."""
    from qwen_audio.serve.hosts import AllowedHosts
    from qwen_audio.serve.launch import (
        check_address,
        check_installed,
        launch_server,
        listen_for_api,
    )
    from qwen_audio.serve.limits import ApiLimits
    from qwen_audio.serve.media_hosts import AllowedMediaHosts

    if options.collection is not None:
        names = ("fastapi", "prometheus_client", "uvicorn", "lancedb", "pyarrow")
        check_extra("a server with a collection", "serve,collections", *names)
    check_installed()
    if options.playground:
        from qwen_audio.playground.launch import check_installed as check_page_installed

        check_extra("a server with the playground", "serve,playground", *_PAGE_PACKAGES)
        check_page_installed()
    limits = ApiLimits()
    if options.max_minutes is not None:
        if not 0 < options.max_minutes < math.inf:
            raise OptionError(f"--max-minutes {options.max_minutes:g}: use a number greater than 0")
        limits = dataclasses.replace(limits, recording_seconds=60 * options.max_minutes)
    keys = [*(options.api_key or []), *filter(None, [os.environ.get(_KEY_VARIABLE)])]
    # Raises before the model is loaded.
    check_address(options.host, keys)
    AllowedHosts(options.host, options.allowed_host or [])
    AllowedMediaHosts(options.allow_media_host or [])
    listen_for_api(options.host, options.port).close()
    if options.collection is None:
        model = load_model(options)
    else:
        from qwen_audio.collection.table import WindowTable

        model = load_collection_model(WindowTable.open(options.collection).spec, options)
    server = launch_server(
        model,
        host=options.host,
        port=options.port,
        api_keys=keys,
        allowed_hosts=options.allowed_host or [],
        media_hosts=options.allow_media_host or [],
        limits=limits,
        transcribe_prompt=options.transcribe_prompt,
        collection=options.collection,
        build_page=_page_builder(model, limits, options.collection) if options.playground else None,
    )
    try:
        server.wait_until_ready()
        gc.collect()
        gc.freeze()  # what has been loaded stays: collections that look at it take 0.1 s each
        if options.json:
            print_json({"url": server.url})
        else:
            what = "The model and the playground are" if options.playground else "The model is"
            print_line(f"{what} served at {server.url} (Ctrl-C stops the server)")
        threading.Event().wait()
    except KeyboardInterrupt as error:
        if isinstance(error, Terminated):
            print_notice("stopping: waiting for requests to end")
            if not server.drain():
                print_error(f"requests took longer than {limits.drain_seconds:g} s, and were ended")
    finally:
        server.close()
    return 0


def _page_builder(model: AudioModel, limits: ApiLimits, collection: str | None) -> BuildPage:
    """What makes the playground, with the server's limits on recordings.

    Raises:
        OptionError: for a model that the page can't ask about recordings.
    """
    from qwen_audio.playground.launch import build_playground, check_page_model
    from qwen_audio.playground.limits import Limits

    check_page_model(model)
    page_limits = Limits(recording_seconds=limits.recording_seconds)
    return lambda thread: build_playground(model, page_limits, collection, thread)

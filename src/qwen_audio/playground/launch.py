"""Start the playground's web server: on localhost unless a host is given."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio import OptionError
from qwen_audio.errors import check_extra

from .context import AppContext
from .limits import Limits
from .middleware import RequestFilter

if TYPE_CHECKING:
    from qwen_audio import AudioModel

__all__ = ["RunningPlayground", "check_installed", "find_free_port", "launch_playground"]

_PORTS = range(7860, 7960)
"""Tried in order if no port is given."""
_LAUNCH_ATTEMPTS = 5
"""Two playgrounds started at the same time may find the same free port."""


class RunningPlayground:
    """A running playground server.

    Attributes:
        url: its local address.
        share_url: its public address, if it was shared.
        context: its model, limits and sessions.
    """

    def __init__(self, page: Any, context: AppContext, url: str, share_url: str | None) -> None:
        self._page, self.context, self.url, self.share_url = page, context, url, share_url

    def wait(self) -> None:
        """Block until interrupted from the keyboard, then stop."""
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()  # Gradio's own way prints a line
        self.close()

    def close(self) -> None:
        """Stop the server."""
        self._page.close(verbose=False)
        self.context.close()


def check_installed() -> None:
    """Raises MissingExtraError without the extra `playground`."""
    # Set before Gradio is imported: the import itself sends analytics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    check_extra("the playground", "playground", "gradio", "fastapi", "matplotlib")


def launch_playground(
    model: AudioModel,
    collection: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    limits: Limits | None = None,
) -> RunningPlayground:
    """Start the playground in the background; call `wait` on the result to keep it running.

    Args:
        collection: what the Search tab searches.
        host: address to listen on; "0.0.0.0" accepts connections from other machines.
        port: default: the first free one from 7860.
        share: also serve it at a public address of Gradio's, while it runs.
        limits: of uploads, memory, queue and answers.

    Raises:
        MissingExtraError: without the extra `playground`.
        OptionError: if the host or port can't be used, or sharing fails.
        CollectionError: if there is no such collection.
    """
    check_installed()
    find_free_port(host, port)  # raises if there is none
    from fastapi.middleware import Middleware

    from .app import build_page

    limits = limits or Limits()
    opened_collection = None
    if collection is not None:
        from qwen_audio import Collection

        opened_collection = Collection.open(collection, model)
    context = AppContext(model, limits, opened_collection)
    pages: dict[str, Callable[[], Awaitable[str]]] = {}
    request_filter = Middleware(
        RequestFilter, sessions=context.sessions, limits=limits, pages=pages
    )
    page = build_page(context).queue(
        max_size=limits.queue_size, api_open=False, default_concurrency_limit=4
    )
    for name in ("httpx", "gradio"):  # their warnings aren't meant for users of the command
        logging.getLogger(name).setLevel(logging.ERROR)
    gradio_output = io.StringIO()  # why sharing failed is only printed
    with contextlib.redirect_stdout(gradio_output):
        url, share_url = _launch_page(page, host, port, share, request_filter)
    if share and share_url is None:
        page.close(verbose=False)
        message = gradio_output.getvalue().strip().partition("\n")[0]
        reason = message.removeprefix("Could not create share link.").strip(" .")
        raise OptionError(
            f"share=True: no public address could be created ({reason or 'Gradio gave none'}): "
            "check the connection, or leave it out"
        )
    return RunningPlayground(page, context, url, share_url)


def _launch_page(
    page: Any, host: str, port: int | None, share: bool, request_filter: Any
) -> tuple[str, str | None]:
    """Start Gradio's server. Returns the local and the public address.

    Raises:
        OptionError: if the port can't be used.
    """
    from .app import theme_options

    for _ in range(_LAUNCH_ATTEMPTS):
        free_port = find_free_port(host, port)
        try:
            _, url, share_url = page.launch(
                server_name=host,
                server_port=free_port,
                share=share,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                show_error=False,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                max_file_size=1,  # Gradio's own upload route is not used
                app_kwargs={
                    "middleware": [request_filter],
                    "docs_url": None,
                    "redoc_url": None,
                    "openapi_url": None,
                },
                **theme_options(),
            )
        except OSError as error:  # another process has taken the port in the meantime
            refused = error
        else:
            return url, share_url
    raise OptionError(f"port={free_port} can't be used on {host}: choose another") from refused


def find_free_port(host: str, port: int | None) -> int:
    """`port`, or the first free one of `_PORTS`.

    Raises:
        OptionError: if it, or all of them, can't be used. Checked here because Gradio would take
            minutes to try them one by one.
    """
    if port is not None and port not in range(1, 65536):
        raise OptionError(f"port={port}: use a number from 1 to 65535")
    for candidate in _PORTS if port is None else (port,):
        try:
            infos = socket.getaddrinfo(host.strip("[]"), candidate, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = infos[0]
            with socket.socket(family, kind, protocol) as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(address)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise OptionError(
                    f"host={host!r} is not an address of this machine: use 127.0.0.1, or 0.0.0.0 "
                    "to accept connections from others"
                ) from error
            continue
        return candidate
    if port is None:
        raise OptionError(f"ports {_PORTS[0]} to {_PORTS[-1]} are all in use: choose another")
    raise OptionError(
        f"port={port} is in use, or needs privileges: choose another, or leave it out for the next "
        "free one"
    )

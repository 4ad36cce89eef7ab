"""Open the page to whoever may come: on this machine alone, unless told otherwise."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio import MissingExtraError, OptionError

from .context import AppContext
from .limits import Limits
from .middleware import RequestFilter

if TYPE_CHECKING:
    from qwen_audio import AudioModel

__all__ = ["Playing", "check_installed", "play"]

_PORTS = range(7860, 7960)
"""Where it opens unless told otherwise: at the first that is free."""


class Playing:
    """An open playground.

    Attributes:
        url: where it is, on this machine.
        share_url: where others find it, if it was shared.
        room: what goes on in it.
    """

    def __init__(self, page: Any, room: AppContext, url: str, share_url: str | None) -> None:
        self._page, self.room, self.url, self.share_url = page, room, url, share_url

    def wait(self) -> None:
        """Until it is stopped from the keyboard."""
        self._page.block_thread()  # which takes the interruption for itself
        self.room.close()

    def close(self) -> None:
        """Shut it."""
        self._page.close(verbose=False)
        self.room.close()


def check_installed() -> None:
    """Raises MissingExtraError without the extra `playground`."""
    # Before Gradio is imported, which would report to its makers that it was.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtraError("the playground", "playground")


def play(
    model: AudioModel,
    collection: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    limits: Limits | None = None,
) -> Playing:
    """Open the playground and return; `wait` on what is returned to keep it open.

    Args:
        collection: what Find searches.
        host: "0.0.0.0" lets in all who can reach this machine.
        port: 7860 or the next that is free, unless given.
        share: also through a public address of Gradio's, for as long as it is open.
        limits: what visitors may ask of it.

    Raises:
        MissingExtraError: without the extra `playground`.
        OptionError: for a host or port that can't be had, and where it was to be shared and can't
            be.
        CollectionError: if there is no such collection.
    """
    check_installed()
    port = _free_port(host, port)
    from fastapi.middleware import Middleware

    from .app import build, look

    limits = limits or Limits()
    opened = None
    if collection is not None:
        from qwen_audio import Collection

        opened = Collection.open(collection, model)
    room = AppContext(model, limits, opened)
    pages: dict[str, Callable[[], Awaitable[str]]] = {}
    door = Middleware(RequestFilter, visits=room.visits, limits=limits, pages=pages)
    page = build(room).queue(max_size=limits.waiting, api_open=False, default_concurrency_limit=4)
    for name in ("httpx", "gradio"):  # what they have to say is not for who opens a page
        logging.getLogger(name).setLevel(logging.ERROR)
    said = io.StringIO()  # what Gradio prints of sharing
    try:
        with contextlib.redirect_stdout(said):
            _, url, share_url = page.launch(
                server_name=host,
                server_port=port,
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
                max_file_size=1,  # nothing comes in through Gradio's own door
                app_kwargs={
                    "middleware": [door],
                    "docs_url": None,
                    "redoc_url": None,
                    "openapi_url": None,
                },
                **look(),
            )
    except OSError as error:
        raise OptionError(f"port={port} can't be used on {host}: name another") from error
    if share and share_url is None:
        page.close(verbose=False)
        told = said.getvalue().strip().partition("\n")[0]
        reason = told.removeprefix("Could not create share link.").strip(" .")
        raise OptionError(
            f"share=True: no public address could be had ({reason or 'Gradio gave none'}): check "
            "the connection, or leave it out"
        )
    return Playing(page, room, url, share_url)


def _free_port(host: str, port: int | None) -> int:
    """The port that was named, or the first that is free.

    Raises:
        OptionError: if there is none. Gradio would try them one by one, for minutes.
    """
    if port is not None and port not in range(1, 65536):
        raise OptionError(f"port={port}: use a number from 1 to 65535")
    for one in _PORTS if port is None else (port,):
        try:
            found = socket.getaddrinfo(host.strip("[]"), one, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as opened:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                opened.bind(address)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise OptionError(
                    f"host={host!r} is no address of this machine: use 127.0.0.1, or 0.0.0.0 to "
                    "let others in"
                ) from error
            continue
        return one
    if port is None:
        raise OptionError(f"ports {_PORTS[0]} to {_PORTS[-1]} are all taken: name another")
    raise OptionError(
        f"port={port} is taken, or not yours to use: name another, or none for the next that is "
        "free"
    )

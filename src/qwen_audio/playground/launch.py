"""Start the playground's web server: on localhost unless a host is given."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qwen_audio import OptionError
from qwen_audio.errors import check_extra
from qwen_audio.serve.hosts import AllowedHosts
from qwen_audio.serve.listen import listen, local_url
from qwen_audio.serve.middleware import RequestFilter
from qwen_audio.serve.model_thread import ModelThread

from .context import AppContext
from .limits import Limits
from .middleware import CONTENT_POLICY, PageFilter

if TYPE_CHECKING:
    from qwen_audio import AudioModel
    from qwen_audio.serve.asgi import App
    from qwen_audio.serve.server import ThreadedServer

__all__ = [
    "PlaygroundPage",
    "RunningPlayground",
    "build_playground",
    "check_installed",
    "check_page_model",
    "launch_playground",
    "listen_for_page",
]

_PORTS = range(7860, 7960)
"""Tried in order if no port is given."""
_GRADIO_SESSIONS = 16
"""For so many Gradio keeps the last output of every handler, which nothing here reads."""


class PlaygroundPage:
    """The page as an ASGI application, for a server of its own or another one.

    Attributes:
        app: answers the page's requests; a RequestFilter with CONTENT_POLICY has to be in front.
        context: its model, limits and sessions.
    """

    content_policy = CONTENT_POLICY

    def __init__(self, app: App, context: AppContext, blocks: Any) -> None:
        self.app, self.context, self._blocks = app, context, blocks

    def close(self) -> None:
        """Stop its queue."""
        self._blocks.close(verbose=False)


class RunningPlayground:
    """A running playground server.

    Attributes:
        url: its local address.
        share_url: its public address, if it was shared.
        context: its model, limits and sessions.
    """

    def __init__(
        self, page: PlaygroundPage, server: ThreadedServer, url: str, share_url: str | None = None
    ) -> None:
        self._page, self._server, self.context = page, server, page.context
        self.url, self.share_url = url, share_url

    def wait(self) -> None:
        """Block until interrupted from the keyboard, then stop."""
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        self.close()

    def close(self) -> None:
        """Stop the server."""
        self._page.close()
        self._server.close()
        self.context.thread.close()


def check_installed() -> None:
    """Raises MissingExtraError without the extra `playground`."""
    # Set before Gradio is imported: the import itself sends analytics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    check_extra("the playground", "playground", "gradio", "fastapi", "matplotlib", "uvicorn")


def listen_for_page(host: str, port: int | None) -> socket.socket:
    """A socket that listens at `port`, or the first free one of `_PORTS`; the caller closes it.

    Raises:
        OptionError: if the host or the port can't be used, or all ports are taken.
    """
    return listen(host, port, _PORTS)


def launch_playground(
    model: AudioModel,
    collection: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    allowed_hosts: Iterable[str] = (),
    limits: Limits | None = None,
) -> RunningPlayground:
    """Start the playground in the background; call `wait` on the result to keep it running.

    Args:
        collection: what the Search tab searches.
        host: address to listen on; "0.0.0.0" accepts connections from other machines.
        port: default: the first free one from 7860.
        share: also serve it at a public address of Gradio's, while it runs.
        allowed_hosts: further names by which browsers reach it, as through a reverse proxy.
            Requests to any other host than these, localhost and `host` are refused.
        limits: of uploads, memory, queue and answers.

    Raises:
        MissingExtraError: without the extra `playground`.
        OptionError: if a host or the port can't be used, or sharing fails, or the model has no
            language model.
        CollectionError: if there is no such collection.
    """
    check_installed()
    from qwen_audio.serve.server import ThreadedServer

    check_page_model(model)
    hosts, limits = AllowedHosts(host, allowed_hosts), limits or Limits()
    with contextlib.ExitStack() as on_failure:
        sock = on_failure.enter_context(listen_for_page(host, port))
        page = build_playground(model, limits, collection)
        app = RequestFilter(page.app, hosts=hosts, policy=CONTENT_POLICY)
        running = RunningPlayground(page, ThreadedServer(app, sock, limits), local_url(host, sock))
        on_failure.callback(running.close)
        if share:
            running.share_url = _share(host, sock)
            hosts.allow(str(urlsplit(running.share_url).hostname))
        on_failure.pop_all()
    return running


def check_page_model(model: AudioModel) -> None:
    """Raises OptionError for a model that the page can't ask about recordings."""
    if not model.dimensions.has_language_model:
        raise OptionError(
            f"{model.name} has no language model, which the playground asks about recordings: use "
            "the command line or Python for its taps"
        )


def build_playground(
    model: AudioModel,
    limits: Limits,
    collection: str | Path | None = None,
    thread: ModelThread | None = None,
) -> PlaygroundPage:
    """The page, to be served.

    Args:
        collection: what the Search tab searches.
        thread: of all uses of the model; None: one of its own.

    Raises:
        CollectionError: if there is no such collection.
    """
    import fastapi
    import gradio as gr

    from .app import build_page, called_functions, page_options

    opened_collection = None
    if collection is not None:
        from qwen_audio import Collection

        opened_collection = Collection.open(collection, model)
    context = AppContext(model, limits, opened_collection, thread)
    page = build_page(context).queue(
        max_size=limits.queue_size, api_open=False, default_concurrency_limit=4
    )
    page.state_session_capacity = _GRADIO_SESSIONS
    for name in ("httpx", "gradio"):  # their warnings aren't meant for users of the command
        logging.getLogger(name).setLevel(logging.ERROR)
    bare: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = gr.mount_gradio_app(
        fastapi.FastAPI(**bare),
        page,
        "",
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=1,  # Gradio's own upload route is not used
        app_kwargs=dict(bare),
        **page_options(context),
    )
    page_filter = PageFilter(
        app, sessions=context.sessions, limits=limits, functions=called_functions(page)
    )
    return PlaygroundPage(page_filter, context, page)


def _share(host: str, sock: socket.socket) -> str:
    """The public address of a tunnel through Gradio's servers.

    Not made by Gradio's `launch`, whose page for it loads its scripts from another host.

    Raises:
        OptionError: if there is none.
    """
    from gradio import networking

    try:
        address = networking.setup_tunnel(
            local_host=str(urlsplit(local_url(host, sock)).hostname),
            local_port=sock.getsockname()[1],
            share_token=secrets.token_urlsafe(32),
            share_server_address=None,
            share_server_tls_certificate=None,
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].strip(" .") or "no reason was given"
        raise OptionError(
            f"share=True: no public address could be created ({reason}): check the connection, or "
            "leave it out"
        ) from error
    return f"https://{urlsplit(address).netloc}"

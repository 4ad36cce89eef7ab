"""Start and stop the HTTP API: on loopback unless a host and a key are given."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_audio.errors import OptionError, check_extra

from .hosts import AllowedHosts
from .limits import ApiLimits
from .listen import listen, local_url

if TYPE_CHECKING:
    from qwen_audio import AudioModel

    from .engine import Engine
    from .gate import ApiGate
    from .page import BuildPage, Page
    from .server import ThreadedServer
    from .service import Service

__all__ = ["RunningServer", "check_address", "check_installed", "launch_server", "listen_for_api"]

_PORTS = range(8000, 8100)
"""Tried in order if no port is given."""
_RESPONSE_SECONDS = 5.0
"""For clients to read the rest of their responses, once the engine has nothing to do."""


class RunningServer:
    """A running server.

    Attributes:
        url: its local address.
    """

    def __init__(
        self,
        service: Service,
        engine: Engine,
        gate: ApiGate,
        server: ThreadedServer,
        url: str,
        page: Page | None = None,
    ) -> None:
        self._service, self._engine, self._gate, self._server = service, engine, gate, server
        self._page, self.url = page, url

    def wait_until_ready(self) -> None:
        """Block until the weights have been read.

        Raises:
            QwenAudioError: if they can't be.
        """
        self._engine.wait_until_ready()

    def drain(self) -> bool:
        """Accept no more requests, and wait until the others have been responded to.

        Returns:
            Whether all were, within `ApiLimits.drain_seconds`.
        """
        has_ended = self._engine.drain(self._service.limits.drain_seconds)
        deadline = time.monotonic() + _RESPONSE_SECONDS
        while self._gate.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        return has_ended and not self._gate.in_flight

    def close(self) -> None:
        """Stop at once; `drain` before lets requests end."""
        if self._page is not None:
            self._page.close()
        self._engine.close()
        self._server.close()
        self._service.close()


def check_installed() -> None:
    """Raises MissingExtraError without the extra `serve`."""
    names = ("fastapi", "prometheus_client", "pydantic", "python_multipart", "uvicorn")
    check_extra("the HTTP API", "serve", *names)


def check_address(host: str, api_keys: Sequence[str]) -> None:
    """Check who could use a server.

    Raises:
        OptionError: for an address that other machines reach without a key, or a key that no header
            can hold.
    """
    for key in api_keys:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise OptionError(
                "api_keys= takes letters, digits and punctuation of ASCII, without spaces"
            )
    if not api_keys and not _is_loopback(host):
        raise OptionError(
            f"host={host!r} can be reached by other machines: give api_keys= as well, or use "
            "127.0.0.1"
        )


def listen_for_api(host: str, port: int | None) -> socket.socket:
    """A socket that listens at `port`, or the first free one of `_PORTS`; the caller closes it.

    Raises:
        OptionError: if the host or the port can't be used, or all ports are taken.
    """
    return listen(host, port, _PORTS)


def launch_server(
    model: AudioModel,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    api_keys: Sequence[str] = (),
    allowed_hosts: Iterable[str] = (),
    media_hosts: Iterable[str] = (),
    limits: ApiLimits | None = None,
    transcribe_prompt: str | None = None,
    collection: str | Path | None = None,
    build_page: BuildPage | None = None,
) -> RunningServer:
    """Start the HTTP API in the background. Weights are read meanwhile: see `wait_until_ready`.

    The model may be used by nothing else until the server is closed.

    Args:
        host: address to listen on; "0.0.0.0" accepts connections from other machines.
        port: default: the first free one from 8000.
        api_keys: requests need one of them; none: they need no key.
        allowed_hosts: further names by which clients reach it, as through a reverse proxy.
        media_hosts: that recordings are fetched from, if requests name their addresses; see
            `AllowedMediaHosts`.
        build_page: makes a page that is served beside the API, at all other paths. Browsers ask for
            one of the keys, as a password.
        transcribe_prompt: what asks the model for a transcription; default: what its family is
            trained with, if it is.
        collection: that clients may search.

    Raises:
        MissingExtraError: without the extra `serve`, and `collections` for a collection.
        CollectionError: for a collection that can't be opened, or was made with another model.
        OptionError: for a host or port that can't be used, a host that other machines reach without
            a key, or a prompt that can't be used.
    """
    check_installed()
    check_address(host, api_keys)
    from .app import build_app
    from .engine import Engine
    from .keys import ApiKeys, PasswordFilter
    from .middleware import RequestFilter
    from .page import beside_page
    from .server import ThreadedServer
    from .service import Service

    table = None
    if collection is not None:
        from qwen_audio.collection.table import WindowTable

        table = WindowTable.open(collection)
        table.check(model.spec(**table.spec.options))
    resolved = ApiLimits() if limits is None else limits
    hosts, keys, page = AllowedHosts(host, allowed_hosts), ApiKeys(api_keys), None
    with ExitStack() as on_failure:
        sock = on_failure.enter_context(listen_for_api(host, port))
        engine = Engine(model.pipeline, resolved)
        on_failure.callback(engine.close)
        service = Service(model, engine, resolved, media_hosts, transcribe_prompt=transcribe_prompt)
        app, gate = build_app(service, hosts, keys, table)
        if build_page is not None:
            page = build_page(engine)
            on_failure.callback(page.close)
            locked = PasswordFilter(page.app, keys)
            app = beside_page(app, RequestFilter(locked, hosts=hosts, policy=page.content_policy))
        server = ThreadedServer(app, sock, resolved)
        on_failure.pop_all()
    return RunningServer(service, engine, gate, server, local_url(host, sock), page)


def _is_loopback(host: str) -> bool:
    name = host.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"

"""An HTTP server in a thread, whose connections are bounded."""

from __future__ import annotations

import functools
import socket
import threading
import time
from typing import Any

import uvicorn

from .asgi import App
from .connections import BoundedProtocol
from .limits import ServerLimits

__all__ = ["ThreadedServer"]

_STOP_SECONDS = 5.0


class ThreadedServer:
    """Serves an ASGI application from a thread, until it is closed.

    Args:
        app: its outermost middleware should be a RequestFilter.
        sock: a listening socket; closed with the server.
    """

    def __init__(self, app: App, sock: socket.socket, limits: ServerLimits) -> None:
        protocol: Any = functools.partial(BoundedProtocol, limits)
        application: Any = app  # uvicorn has a type of its own for every message
        config = uvicorn.Config(
            app=application,
            http=protocol,
            ws="none",
            lifespan="on",
            proxy_headers=False,  # RequestFilter decides on them
            server_header=False,
            access_log=False,
            log_level="error",  # warnings tell of every request that isn't HTTP
            limit_concurrency=limits.connections + 1,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server didn't start")
            time.sleep(0.005)

    def close(self) -> None:
        """Close all connections, and stop."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)

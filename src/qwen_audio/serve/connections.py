"""Connections of uvicorn: bounded in number, and closed where clients are too slow.

uvicorn itself bounds neither the time that headers take nor that for which a response stays unread.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import ServerLimits

__all__ = ["BoundedProtocol"]

_SPARE_CONNECTIONS = 64
"""Above the limit, this many connections are told so before further ones are closed at once."""


class BoundedProtocol(H11Protocol):
    """A connection that is closed if no request arrives, or its response isn't read, in time."""

    def __init__(self, limits: ServerLimits, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections + _SPARE_CONNECTIONS:
            transport.abort()
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        for timer in (self._request_timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request; the rest of a refused body may take no longer than that."""
        super().on_response_complete()
        self._await_request()

    def shutdown(self) -> None:
        """Close at once: streams would go on for as long as their pages are open."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """The client reads nothing for now."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.header_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _await_request(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
        self._request_timer = self.loop.call_later(self._limits.header_seconds, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

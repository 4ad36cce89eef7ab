"""Request bodies: bounded in size and time, in memory that is reserved."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from .asgi import ClientDisconnectedError, Receive, RequestError, Scope, header_values
from .limits import ServerLimits

__all__ = ["ByteBudget", "Reservation", "content_length", "read_body"]


class ByteBudget:
    """Memory that bodies may take together.

    Attributes:
        reserved: bytes in use.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.reserved = limit, 0
        self._lock = threading.Lock()

    def reserve(self, nbytes: int) -> bool:
        """Take bytes, unless that exceeds the limit. Returns whether they were taken."""
        with self._lock:
            if self.reserved + nbytes > self.limit:
                return False
            self.reserved += nbytes
            return True

    def release(self, nbytes: int) -> None:
        """Give bytes back."""
        with self._lock:
            self.reserved -= nbytes


class Reservation:
    """What one request has of a budget. A context, whose end releases it.

    It is taken as bytes arrive: who states a large body, and sends none, takes nothing from others.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget, self._nbytes = budget, 0

    @property
    def nbytes(self) -> int:
        """How much has been taken."""
        return self._nbytes

    def take(self, nbytes: int) -> None:
        """Take more.

        Raises:
            RequestError: (503) if the budget is exhausted.
        """
        if not self._budget.reserve(nbytes):
            raise RequestError(503, "Too many large requests at once: try again in a moment.")
        self._nbytes += nbytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.release(self._nbytes)
        self._nbytes = 0


def content_length(scope: Scope) -> int | None:
    """The stated length of a body; 0 without a body, None for one in chunks, which states none.

    Raises:
        RequestError: if it is malformed, or stated twice.
    """
    values = header_values(scope, b"content-length")
    if header_values(scope, b"transfer-encoding"):
        return None
    if not values:
        return 0
    if len(values) > 1 or not (values[0].isascii() and values[0].isdigit() and len(values[0]) < 16):
        raise RequestError(400, "The Content-Length header is malformed.")
    return int(values[0])


async def read_body(
    scope: Scope,
    receive: Receive,
    limit: int,
    limits: ServerLimits,
    too_large: str,
    memory: Reservation | None = None,
) -> bytes:
    """The body of a request.

    Args:
        limit: bytes that it may have.
        limits: whose deadlines apply.
        too_large: message for a body that has more.
        memory: of which its bytes are taken, unless the caller has reserved some.

    Raises:
        RequestError: if it is too large (413), too slow (408), or longer than stated (400); or if
            there is no memory for it (503).
        ClientDisconnectedError: if it is incomplete.
    """
    length = content_length(scope)
    if length is not None and length > limit:
        raise RequestError(413, too_large)
    clock = asyncio.get_running_loop().time
    start, idle = clock(), limits.body_idle_seconds
    parts: list[bytes] = []
    received, more = 0, True
    while more:
        allowed = min(idle + received / limits.body_bytes_per_second, limits.body_seconds)
        try:
            message = await asyncio.wait_for(receive(), min(idle, start + allowed - clock()))
        except TimeoutError:
            raise RequestError(408, "The request was sent too slowly: try again.") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError("the client disconnected")
        part = message.get("body", b"")
        received += len(part)
        if received > limit:
            raise RequestError(413, too_large)
        if length is not None and received > length:
            raise RequestError(400, "The body is longer than its Content-Length.")
        if memory is not None:
            memory.take(len(part))
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)

"""Request bodies: bounded in size and time, in memory that is reserved before it is used."""

from __future__ import annotations

import asyncio
import threading

from .asgi import ClientDisconnectedError, Receive, RequestError, Scope, header_values
from .limits import ServerLimits

__all__ = ["ByteBudget", "content_length", "read_body"]


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
    scope: Scope, receive: Receive, limit: int, limits: ServerLimits, too_large: str
) -> bytes:
    """The body of a request.

    Args:
        limit: bytes that it may have.
        limits: whose deadlines apply.
        too_large: message for a body that has more.

    Raises:
        RequestError: if it is too large (413), too slow (408), or longer than stated (400).
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
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)

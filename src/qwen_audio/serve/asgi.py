"""ASGI types, and the few operations on requests and responses that the middleware needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from qwen_audio.errors import QwenAudioError

__all__ = [
    "App",
    "ClientDisconnectedError",
    "Header",
    "Message",
    "Receive",
    "RequestError",
    "Scope",
    "Send",
    "header_values",
    "respond",
    "with_headers",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class RequestError(QwenAudioError):
    """A request that is refused.

    Args:
        status: HTTP status code.
        message: one line for whoever sent the request.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClientDisconnectedError(QwenAudioError):
    """The client went away before its request was complete: nobody waits for a response."""


def header_values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header, given in lower case, as text: every byte is one character."""
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


async def respond(
    send: Send,
    status: int,
    text: str,
    content_type: str = "text/plain; charset=utf-8",
    headers: Sequence[Header] = (),
) -> None:
    """Send a complete response."""
    body = text.encode()
    start: list[Header] = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def with_headers(send: Send, headers: Sequence[Header]) -> Send:
    """`send`, with headers added to every response; those of the same name are replaced."""
    names = {name for name, _ in headers}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
            message = {**message, "headers": [*others, *headers]}
        await send(message)

    return send_with_headers

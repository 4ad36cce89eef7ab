"""Requests to ASGI applications, byte for byte as a server passes them on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

from qwen_audio.serve.asgi import App, Message, Receive, Scope, Send

__all__ = ["HOST", "EchoApp", "Response", "request", "request_now"]

HOST = (b"host", b"localhost:7860")


class Response(NamedTuple):
    """A response; status 0 is none."""

    status: int
    headers: dict[str, str]
    text: str


class EchoApp:
    """An application that keeps the requests that reach it, and answers each with "passed"."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive()).get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"passed"})


async def request(
    app: App,
    method: str,
    target: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    parts: Iterable[bytes] = (b"",),
    *,
    host: bool = True,
    after: str = "end",
) -> Response:
    """One request.

    Args:
        parts: of the body.
        host: whether the Host header is HOST.
        after: what follows the parts: the "end", or before it "disconnect", or nothing ("stall").
    """
    waiting = list(parts)
    sent: list[Message] = []

    async def receive() -> Message:
        if not waiting:
            if after == "stall":
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}
        part = waiting.pop(0)
        more = bool(waiting) or after != "end"
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(message: Message) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [*([HOST] if host else []), *headers],
    }
    await app(scope, receive, send)
    if not sent:
        return Response(0, {}, "")
    body = b"".join(message.get("body", b"") for message in sent[1:])
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Response(sent[0]["status"], names, body.decode(errors="replace"))


def request_now(app: App, method: str, target: str, *arguments: Any, **options: Any) -> Response:
    """`request`, without an event loop."""
    return asyncio.run(request(app, method, target, *arguments, **options))

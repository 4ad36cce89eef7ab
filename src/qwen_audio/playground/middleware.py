"""ASGI middleware: an allowlist of the page's own requests, uploads, and security headers.

Gradio can also serve files, fetch URLs and run component code, none of which this page needs: every
other route is refused, and so is any request that names a file or URL. Recordings arrive as bytes;
examples by name, search results by index.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .limits import Limits
from .sessions import SessionStore

__all__ = ["RequestFilter"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UPLOAD_PATH = "/clip"

_API = "/gradio_api"
_GET_PATHS = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt"})
_GET_PREFIXES = (
    "/assets/",
    "/static/",
    f"{_API}/heartbeat/",
    f"{_API}/queue/data",
    f"{_API}/startup-events",
)
_POST_PATHS = frozenset({f"{_API}/queue/join", f"{_API}/cancel", f"{_API}/reset"})

_REQUEST_BYTES = 64 * 1024
"""Largest request other than an upload."""
_NAME_CHARACTERS = 80

# The page loads nothing from other hosts. 'unsafe-eval': Gradio compiles its templates in the page.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "frame-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
    )
)


class RequestFilter:
    """ASGI middleware in front of Gradio.

    Args:
        sessions: where uploads are stored.
        pages: additional pages: path → coroutine function that returns HTML.
    """

    def __init__(
        self,
        app: App,
        *,
        sessions: SessionStore,
        limits: Limits,
        pages: dict[str, Callable[[], Awaitable[str]]],
    ) -> None:
        self.app, self.sessions, self.limits, self.pages = app, sessions, limits, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward, answer or refuse one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path, method = _path(scope), scope["method"]
        if method == "POST" and not _is_same_origin(scope):
            await _respond(send, 403, "Requests from pages of other sites are refused.")
        elif (method, path) == ("POST", UPLOAD_PATH):
            await self._receive_upload(scope, receive, send)
        elif method == "POST" and path in _POST_PATHS:
            await self._forward_checked(scope, receive, send)
        elif method in ("GET", "HEAD") and path in self.pages:
            await _respond(send, 200, await self.pages[path](), "text/html; charset=utf-8")
        elif method in ("GET", "HEAD") and (path in _GET_PATHS or path.startswith(_GET_PREFIXES)):
            await self.app(scope, receive, _with_security_headers(send))
        else:
            await _respond(send, 404, "Not found.")

    async def _receive_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store an upload in memory, unless it exceeds the limit."""
        data = await _read_body(scope, receive, self.limits.upload_bytes)
        query = parse_qs(scope.get("query_string", b"").decode("ascii", "replace"))
        name = _safe_file_name(query.get("name", [""])[0])
        if data is None:
            problem = f"{name} is larger than {self.limits.upload_text}: choose a shorter one."
            await _respond_json(send, 413, {"problem": problem})
        else:
            await _respond_json(send, 200, {"ticket": self.sessions.add_upload(name, data)})

    async def _forward_checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to Gradio, unless it is large or Gradio would read a file for it."""
        data = await _read_body(scope, receive, _REQUEST_BYTES)
        try:
            content = json.loads(data) if data else {}
        except (ValueError, RecursionError):
            content = None
        if data is None or content is None or _contains_file_reference(content):
            await _respond(send, 400, "Invalid request.")
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": data, "more_body": False}

        await self.app(scope, replay, _with_security_headers(send))


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"


def _is_same_origin(scope: Scope) -> bool:
    """Whether the Origin header, which only browsers send, is this server's."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    hosts = {headers.get(name, b"").decode("latin-1") for name in (b"host", b"x-forwarded-host")}
    return not origin or urlsplit(origin).netloc in hosts


def _contains_file_reference(value: Any) -> bool:
    """Whether any nested dict has a key by which Gradio reads a file or fetches a URL."""
    if isinstance(value, dict):
        return bool({"meta", "path", "url"} & value.keys()) or any(
            map(_contains_file_reference, value.values())
        )
    return isinstance(value, list) and any(map(_contains_file_reference, value))


def _safe_file_name(text: str) -> str:
    """A file name without folders and control characters, shortened from the left."""
    name = "".join(c for c in text.replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return name[-_NAME_CHARACTERS:].strip() or "recording"


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The request's body, or None as soon as it exceeds `limit` bytes or the client disconnects."""
    content_length = dict(scope["headers"]).get(b"content-length", b"0")
    if not content_length.isdigit() or int(content_length) > limit:
        return None
    data = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data += message.get("body", b"")
        if len(data) > limit:
            return None
        more = message.get("more_body", False)
    return bytes(data)


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", []),
                (b"content-security-policy", _POLICY.encode()),
                (b"referrer-policy", b"no-referrer"),
                (b"x-content-type-options", b"nosniff"),
            ]
        await send(message)

    return send_with_headers


async def _respond(send: Send, status: int, text: str, content_type: str = "text/plain") -> None:
    body = text.encode()
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    send = _with_security_headers(send)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _respond_json(send: Send, status: int, data: dict[str, str]) -> None:
    await _respond(send, status, json.dumps(data), "application/json")

"""What may come in: the page's own requests, recordings as uploads, and nothing else.

Gradio can serve files, fetch addresses and run much that this page has no use for. Here only what
the page itself asks for passes. No request names a file or an address: recordings come as bytes,
examples and what was found by their numbers.
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

UPLOAD = "/clip"

_API = "/gradio_api"
_READ = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt"})
_READ_BELOW = (
    "/assets/",
    "/static/",
    f"{_API}/heartbeat/",
    f"{_API}/queue/data",
    f"{_API}/startup-events",
)
_ASK = frozenset({f"{_API}/queue/join", f"{_API}/cancel", f"{_API}/reset"})

_REQUEST_BYTES = 64 * 1024
"""Of anything but an upload: a question, a number, a choice."""
_NAME_LETTERS = 80

# The page brings all it needs: nothing is ever asked of another host. Gradio compiles its templates
# in the page, which is what 'unsafe-eval' is for.
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
    """ASGI middleware before Gradio.

    Args:
        pages: further pages, by their path: each is a function that gives its HTML.
    """

    def __init__(
        self,
        app: App,
        *,
        visits: SessionStore,
        limits: Limits,
        pages: dict[str, Callable[[], Awaitable[str]]],
    ) -> None:
        self.app, self.visits, self.limits, self.pages = app, visits, limits, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, answer or refuse one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path, method = _path(scope), scope["method"]
        if method == "POST" and not _same_host(scope):
            await _answer(send, 403, "Another site's page can't ask anything here.")
        elif (method, path) == ("POST", UPLOAD):
            await self._take_in(scope, receive, send)
        elif method == "POST" and path in _ASK:
            await self._pass_on_checked(scope, receive, send)
        elif method in ("GET", "HEAD") and path in self.pages:
            await _answer(send, 200, await self.pages[path](), "text/html; charset=utf-8")
        elif method in ("GET", "HEAD") and (path in _READ or path.startswith(_READ_BELOW)):
            await self.app(scope, receive, _with_policy(send))
        else:
            await _answer(send, 404, "There is nothing here.")

    async def _take_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A recording's bytes, as long as they are no more than the limit: into memory."""
        data = await _body(scope, receive, self.limits.upload_bytes)
        query = parse_qs(scope.get("query_string", b"").decode("ascii", "replace"))
        name = _plain_name(query.get("name", [""])[0])
        if data is None:
            await _answer_json(
                send,
                413,
                {"problem": f"{name} is larger than {self.limits.largest}: choose a shorter one."},
            )
        else:
            await _answer_json(send, 200, {"ticket": self.visits.take_in(name, data)})

    async def _pass_on_checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request to Gradio, unless it is large or holds what Gradio would take for a file."""
        data = await _body(scope, receive, _REQUEST_BYTES)
        try:
            asked = json.loads(data) if data else {}
        except (ValueError, RecursionError):
            asked = None
        if data is None or asked is None or _names_a_file(asked):
            await _answer(send, 400, "The page asks for nothing like that.")
            return
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": data, "more_body": False}

        await self.app(scope, again, _with_policy(send))


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"


def _same_host(scope: Scope) -> bool:
    """Whether a browser sends this from the page itself; other programs state no origin."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    hosts = {headers.get(name, b"").decode("latin-1") for name in (b"host", b"x-forwarded-host")}
    return not origin or urlsplit(origin).netloc in hosts


def _names_a_file(value: Any) -> bool:
    """Whether Gradio would read a file or fetch an address for it: a dict with `meta` and `path`
    (or `url`), however deep."""
    if isinstance(value, dict):
        return bool({"meta", "path", "url"} & value.keys()) or any(
            map(_names_a_file, value.values())
        )
    return isinstance(value, list) and any(map(_names_a_file, value))


def _plain_name(text: str) -> str:
    """A file's name without folders and control characters, and not too long."""
    name = "".join(c for c in text.replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return name[-_NAME_LETTERS:].strip() or "recording"


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """All of a request's body, or None as soon as it is more than `limit` bytes."""
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if not stated.isdigit() or int(stated) > limit:
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


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", []),
                (b"content-security-policy", _POLICY.encode()),
                (b"referrer-policy", b"no-referrer"),
                (b"x-content-type-options", b"nosniff"),
            ]
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, kind: str = "text/plain") -> None:
    body = text.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    passed = _with_policy(send)
    await passed({"type": "http.response.start", "status": status, "headers": headers})
    await passed({"type": "http.response.body", "body": body})


async def _answer_json(send: Send, status: int, data: dict[str, str]) -> None:
    await _answer(send, status, json.dumps(data), "application/json")

"""ASGI middleware: an allow-list of the page's own requests, and its uploads.

Gradio can also serve files, fetch URLs and run component code, none of which this page needs: every
other route is refused, and so is any request that names a file or URL. Recordings arrive as bytes;
examples by name, search results by index.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import parse_qs

from qwen_audio.paths import printable
from qwen_audio.serve.asgi import App, Message, Receive, RequestError, Scope, Send, respond
from qwen_audio.serve.body import content_length, read_body
from qwen_audio.serve.json_body import check_json_headers, parse_json

from .limits import Limits
from .page_requests import check_cancel, check_page_id, checked_join, page_id_of_query
from .payloads import wav_bytes
from .pending import PendingRequests
from .sessions import SessionStore

__all__ = ["CONTENT_POLICY", "PageFilter"]

UPLOAD_PATH = "/clip"

_API = "/gradio_api"
_JOIN, _RESULTS, _HEARTBEAT = f"{_API}/queue/join", f"{_API}/queue/data", f"{_API}/heartbeat/"
_CANCEL = frozenset({f"{_API}/cancel", f"{_API}/reset"})
_GET_PATHS = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt"})
_ASSET = re.compile(r"/(assets|static)(/\w[\w.@-]{0,99}){1,4}", re.ASCII)
_RECORDING = re.compile(r"/recording/([A-Za-z0-9_-]{32})", re.ASCII)
_COMPLETED = b'"msg":"process_completed"'
_CLOSED = b'"msg":"close_stream"'
_RUNNING = 64
"""More than Gradio runs at the same time, beside those that wait in its queue."""
_NAME_BYTES = 255
"""The longest name that file systems have."""

# The page loads nothing from other hosts. 'unsafe-eval': Gradio compiles its templates in the page.
CONTENT_POLICY = "; ".join(
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
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class PageFilter:
    """ASGI middleware in front of Gradio, behind a RequestFilter.

    Args:
        sessions: where uploads are stored.
        functions: those that the page calls.
    """

    def __init__(
        self, app: App, *, sessions: SessionStore, limits: Limits, functions: frozenset[int]
    ) -> None:
        self.app, self.sessions, self.limits, self.functions = app, sessions, limits, functions
        self.pending = PendingRequests(limits.queue_size + _RUNNING)
        self._streams = 0
        self._discarding: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward, answer or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = str(scope["method"]), str(scope["path"])
        is_get = method in ("GET", "HEAD")
        if (method, path) == ("POST", UPLOAD_PATH):
            await self._receive_upload(scope, receive, send)
        elif (method, path) == ("POST", _JOIN):
            await self._join(scope, receive, send)
        elif method == "POST" and path in _CANCEL:
            body = await self._json(scope, receive)
            check_cancel(body)
            await self.app(scope, _replay(body, receive), send)
        elif (method, path) == ("GET", _RESULTS):
            await self._send_results(page_id_of_query(scope), scope, receive, send)
        elif method == "GET" and path.startswith(_HEARTBEAT):
            check_page_id(path.removeprefix(_HEARTBEAT))
            await self._stream(scope, receive, send)
        elif method == "GET" and (match := _RECORDING.fullmatch(path)):
            await self._send_recording(match[1], send)
        elif is_get and (path in _GET_PATHS or _ASSET.fullmatch(path)):
            await self.app(scope, receive, send)
        else:
            raise RequestError(404, "Not found.")

    async def _receive_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store an upload in memory, which is reserved before anything is read."""
        limit = self.limits.upload_bytes
        query = parse_qs(scope["query_string"].decode("latin-1"))
        name = _safe_file_name(query.get("name", [""])[0])
        too_large = (
            f"{printable(name)} is larger than {self.limits.upload_text}: choose a shorter one."
        )
        try:
            length = content_length(scope)
            if length is not None and length > limit:
                raise RequestError(413, too_large)
            with self.sessions.receiving(limit if length is None else length) as store:
                data = await read_body(scope, receive, limit, self.limits, too_large)
                ticket = store(name, data)
        except RequestError as error:
            await _respond_json(send, error.status, {"problem": str(error)})
        else:
            await _respond_json(send, 200, {"ticket": ticket})

    async def _send_recording(self, token: str, send: Send) -> None:
        """The audio of a page's open recording, as the model hears it."""
        waveform = self.sessions.recording(token)
        if waveform is None:
            raise RequestError(404, "No page has this recording open.")
        wav = await asyncio.to_thread(wav_bytes, waveform.samples)
        headers = [(b"content-type", b"audio/wav"), (b"content-length", str(len(wav)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": wav})

    async def _json(self, scope: Scope, receive: Receive) -> Any:
        check_json_headers(scope)
        limit = self.limits.request_bytes
        body = await read_body(scope, receive, limit, self.limits, f"At most {limit} bytes.")
        return parse_json(body)

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request to call a function of the page."""
        body = checked_join(await self._json(scope, receive), self.functions)
        page_id = body["session_hash"]
        self._discard_abandoned(scope)
        self.pending.add(page_id)
        accepted = False

        async def send_result(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message.get("status") == 200
            await send(message)

        try:
            await self.app(scope, _replay(body, receive), send_result)
        finally:
            if not accepted:
                self.pending.remove(page_id)

    async def _send_results(self, page_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the stream of a page's results, and count those that it has sent."""
        is_complete = False

        async def send_results(message: Message) -> None:
            nonlocal is_complete
            await send(message)
            start = message.get("body", b"")[:100]
            is_complete = is_complete or _CLOSED in start
            if _COMPLETED in start:
                self.pending.remove(page_id)

        with self.pending.reading(page_id):
            try:
                await self._stream(scope, receive, send_results)
            finally:
                if not is_complete:
                    self.pending.drop(page_id)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a response that has no end until its page is closed."""
        if self._streams >= self.limits.connections // 2:
            raise RequestError(503, "Too many pages are open: close one, or try again later.")
        self._streams += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._streams -= 1

    def _discard_abandoned(self, scope: Scope) -> None:
        """Read, and drop, the results that pages which are gone have left unread."""
        for page_id in self.pending.abandoned():
            query = f"session_hash={page_id}".encode()
            request = {**scope, "method": "GET", "path": _RESULTS, "query_string": query}
            if page_id not in self._discarding:
                task = asyncio.create_task(self._discard(page_id, request))
                self._discarding[page_id] = task

    async def _discard(self, page_id: str, request: Scope) -> None:
        try:
            await self._send_results(page_id, request, _never, _drop)
        except RequestError:
            pass  # read meanwhile
        finally:
            del self._discarding[page_id]


async def _never() -> Message:
    """`receive` of a request without a body, whose client doesn't disconnect."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def _drop(message: Message) -> None:
    """`send` to nobody."""


def _replay(body: Any, receive: Receive) -> Receive:
    """`receive` that gives the body as it was understood, then whatever follows."""
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _safe_file_name(text: str) -> str:
    """A file's own name: without folders, and as long as names can be, cut from the left."""
    name = text.replace("\0", "").rpartition("/")[2].encode()[-_NAME_BYTES:]
    kept = name.decode(errors="ignore")
    return "recording" if kept in ("", ".", "..") else kept


async def _respond_json(send: Send, status: int, data: dict[str, str]) -> None:
    await respond(send, status, json.dumps(data), "application/json")

"""ASGI middleware of the HTTP API: keys, bounded bodies, errors in OpenAI's form."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .api_errors import error_response
from .asgi import (
    App,
    ClientDisconnectedError,
    Message,
    Receive,
    RequestError,
    Scope,
    Send,
    header_values,
)
from .body import ByteBudget, content_length, read_body
from .form_body import form_boundary, parse_form
from .json_body import check_json_headers, parse_json
from .limits import ApiLimits

__all__ = ["BODY_KEY", "FORM_PATHS", "ApiGate"]

BODY_KEY = "qwen_audio.body"
"""Of a request's scope: what its body says."""
FORM_PATHS = frozenset({"/v1/audio/transcriptions"})
"""Take forms with files; all others JSON."""
_OPEN_PATHS = frozenset({"/health", "/ready", "/docs", "/openapi.json"})
"""Need no key: they say nothing of requests, and probes of an orchestrator have none."""


class ApiGate:
    """ASGI middleware in front of the API's routes, behind a RequestFilter.

    Args:
        api_keys: of which requests need one; empty: they need none.
        count: called with the path and the status of every response.

    Attributes:
        in_flight: requests that haven't been responded to in full.
    """

    def __init__(
        self,
        app: App,
        limits: ApiLimits,
        api_keys: Sequence[str],
        count: Callable[[str, int], None],
    ) -> None:
        self.app, self.limits, self._count = app, limits, count
        self._keys = [key.encode() for key in api_keys]
        self._bodies = ByteBudget(limits.upload_memory_bytes)
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward, answer or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_noting(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                self._count(scope["path"], message["status"])
            has_begun = True
            await send(message)

        self.in_flight += 1
        try:
            self._check_key(scope)
            if scope["method"] == "POST":
                await self._forward_body(scope, receive, send_noting)
            else:
                await self.app(scope, receive, send_noting)
        except ClientDisconnectedError:
            pass
        except Exception as error:  # noqa: BLE001 (any failure is a response)
            if not has_begun:  # otherwise it has been logged
                await error_response(error).send(send_noting)
        finally:
            self.in_flight -= 1

    def _check_key(self, scope: Scope) -> None:
        """Raises RequestError (401) without one of the keys; takes the same time for any key."""
        if not self._keys or scope["path"] in _OPEN_PATHS:
            return
        values = header_values(scope, b"authorization")
        scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        given = key.strip().encode("latin-1")
        matches = [hmac.compare_digest(given, each) for each in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise RequestError(
                401, "The API key is missing or wrong: send it as Authorization: Bearer KEY."
            )

    async def _forward_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request with its body parsed; memory for it is reserved until it has ended."""
        parse: Callable[[bytes], Any] = parse_json
        if scope["path"] in FORM_PATHS:
            parse = partial(parse_form, form_boundary(scope))
        else:
            check_json_headers(scope)
        limit = self.limits.request_bytes
        too_large = f"The body is larger than {limit / 2**20:g} MB, the limit of this server."
        length = content_length(scope)
        if length is not None and length > limit:
            raise RequestError(413, too_large)
        reserved = limit if length is None else length
        if not self._bodies.reserve(reserved):
            raise RequestError(503, "Too many large requests at once: try again in a moment.")
        try:
            body = await read_body(scope, receive, limit, self.limits, too_large)
            value: Any = await asyncio.to_thread(parse, body)
            del body
            await self.app({**scope, BODY_KEY: value}, receive, send)
        finally:
            self._bodies.release(reserved)

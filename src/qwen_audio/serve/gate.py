"""ASGI middleware of the HTTP API: keys, bounded bodies, errors in OpenAI's form."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from .api_errors import error_response
from .asgi import (
    App,
    ClientDisconnectedError,
    Message,
    Receive,
    Scope,
    Send,
)
from .body import ByteBudget, Reservation, read_body
from .form_body import form_boundary, parse_form
from .json_body import check_json_headers, parse_json
from .keys import ApiKeys
from .limits import ApiLimits

__all__ = ["BODY_KEY", "FORM_PATHS", "OPEN_PATHS", "ApiGate"]

_PARSED_AT_ONCE = 2**17
"""Bytes of a body that are parsed in the event loop: a recording in base64 takes 0.05 ms, which is
less than a thread takes to begin, and thousands of values some milliseconds."""
BODY_KEY = "qwen_audio.body"
"""Of a request's scope: what its body says."""
FORM_PATHS = frozenset({"/v1/audio/transcriptions"})
"""Take forms with files; all others JSON."""
OPEN_PATHS = frozenset({"/health", "/ready", "/docs", "/openapi.json"})
"""Need no key: they say nothing of requests, and probes of an orchestrator have none."""


class ApiGate:
    """ASGI middleware in front of the API's routes, behind a RequestFilter.

    Args:
        keys: of which requests need one.
        count: called with the path and the status of every response.
        body_paths: of routes that take a body; of other requests none is read.

    Attributes:
        in_flight: requests that haven't been responded to in full.
        bodies: the memory of theirs.
    """

    def __init__(
        self,
        app: App,
        limits: ApiLimits,
        keys: ApiKeys,
        count: Callable[[str, int], None],
        body_paths: Collection[str],
    ) -> None:
        self.app, self.limits, self._keys, self._count = app, limits, keys, count
        self._body_paths = frozenset(body_paths)
        self.bodies = ByteBudget(limits.upload_memory_bytes)
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
            if scope["path"] not in OPEN_PATHS:
                self._keys.check(scope)
            if scope["method"] == "POST" and scope["path"] in self._body_paths:
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

    async def _forward_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request with its body parsed, whose memory is reserved until it has ended."""
        parse: Callable[[bytes], Any] = parse_json
        if scope["path"] in FORM_PATHS:
            parse = partial(parse_form, form_boundary(scope))
        else:
            check_json_headers(scope)
        limit = self.limits.request_bytes
        too_large = f"The body is larger than {limit / 2**20:g} MB, the limit of this server."
        with Reservation(self.bodies) as memory:
            body = await read_body(scope, receive, limit, self.limits, too_large, memory)
            value: Any = (
                parse(body)
                if len(body) <= _PARSED_AT_ONCE
                else await asyncio.to_thread(parse, body)
            )
            del body
            await self.app({**scope, BODY_KEY: value}, receive, send)

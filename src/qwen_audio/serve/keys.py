"""API keys: of programs, as OpenAI's clients send them, and of browsers, as a password."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

from .asgi import App, Header, Receive, RequestError, Scope, Send, header_values, respond

__all__ = ["ApiKeys", "PasswordFilter"]

_CHALLENGE: tuple[Header, ...] = ((b"www-authenticate", b'Basic realm="qwen-audio"'),)


class ApiKeys:
    """The keys of a server, of which a request needs one. None: requests need no key."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, scope: Scope) -> None:
        """Raises RequestError (401) for a request without a key as its bearer token."""
        scheme, given = _credentials(scope)
        if self._keys and not (scheme == "bearer" and self._is_known(given)):
            raise RequestError(
                401, "The API key is missing or wrong: send it as Authorization: Bearer KEY."
            )

    def is_password(self, scope: Scope) -> bool:
        """Whether a request has a key as the password of any user (RFC 7617), or needs none."""
        scheme, given = _credentials(scope)
        if not self._keys:
            return True
        try:
            _, _, password = base64.b64decode(given, validate=True).partition(b":")
        except binascii.Error:
            return False
        return scheme == "basic" and self._is_known(password)

    def _is_known(self, given: bytes) -> bool:
        """Takes the same time for any key."""
        matches = [hmac.compare_digest(given, each) for each in self._keys]
        return any(matches)


class PasswordFilter:
    """ASGI middleware in front of a page: browsers ask their user for a key, as a password."""

    def __init__(self, app: App, keys: ApiKeys) -> None:
        self.app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or ask for the key."""
        if scope["type"] != "http" or self._keys.is_password(scope):
            await self.app(scope, receive, send)
        else:
            text = "Enter one of the server's API keys as the password, and any user name.\n"
            await respond(send, 401, text, headers=_CHALLENGE)


def _credentials(scope: Scope) -> tuple[str, bytes]:
    """Scheme, in lower case, and value of the Authorization header; empty without exactly one."""
    values = header_values(scope, b"authorization")
    scheme, _, given = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return scheme.lower(), given.strip().encode("latin-1")

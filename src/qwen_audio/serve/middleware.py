"""ASGI middleware: refuses requests of other hosts and sites, and sends security headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from qwen_audio.paths import printable

from .asgi import (
    App,
    ClientDisconnectedError,
    Header,
    Receive,
    RequestError,
    Scope,
    Send,
    header_values,
    respond,
    with_headers,
)
from .hosts import AllowedHosts, parse_authority

__all__ = ["RequestFilter"]

_OWN_SITES = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of requests by the server's own pages, and of addresses that a user typed."""

_HEADERS: tuple[Header, ...] = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class RequestFilter:
    """ASGI middleware in front of a server's application.

    The application sees only requests to the server's own hosts, from its own pages or from
    programs other than browsers, without headers by which a proxy, or anybody else, states another
    host, scheme or client. A RequestError that the application raises before it responds is its
    response.

    Args:
        hosts: that the server answers for.
        policy: value of the Content-Security-Policy header.
        pages: paths that pages of other sites may link to.
        refuse: responds to a refused request; by default with one line of text.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: AllowedHosts,
        policy: str,
        pages: Collection[str] = ("/",),
        refuse: Callable[[Send, RequestError], Awaitable[None]] | None = None,
    ) -> None:
        self.app, self.hosts, self.pages = app, hosts, frozenset(pages)
        self._refuse = refuse or _respond_line
        self._headers = (*_HEADERS, (b"content-security-policy", policy.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward or refuse one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            send = with_headers(send, self._headers)
            try:
                await self.app(self._checked(scope), receive, send)
            except RequestError as error:
                await self._refuse(send, error)
            except ClientDisconnectedError:
                pass

    def _checked(self, scope: Scope) -> Scope:
        """The request as the application sees it.

        Raises:
            RequestError: if it is refused.
        """
        if not str(scope["path"]).startswith("/"):  # the absolute form states another host
            raise RequestError(400, "The request target must be a path.")
        hosts = header_values(scope, b"host")
        host = parse_authority(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            raise RequestError(400, "The Host header is missing or malformed.")
        schemes = self.hosts.schemes(host.host)
        if not schemes:
            raise RequestError(
                403,
                f"This server doesn't answer for the host {printable(host.host)}: use its own "
                "address, or start it with --allowed-host and this name.",
            )
        origins = header_values(scope, b"origin")
        if len(origins) > 1 or not all(self.hosts.is_same_origin(each, host) for each in origins):
            raise RequestError(403, "Requests from pages of other sites are refused.")
        sites = header_values(scope, b"sec-fetch-site")
        if not _OWN_SITES.issuperset(sites) and not self._is_link(scope):
            raise RequestError(403, "Requests from pages of other sites are refused.")
        headers = [pair for pair in scope["headers"] if not _is_forwarded(pair[0])]
        return {**scope, "headers": headers, "scheme": _scheme(scope, schemes)}

    def _is_link(self, scope: Scope) -> bool:
        """Whether a user has followed a link on another site to a page of this server."""
        return (
            scope["method"] in ("GET", "HEAD")
            and scope["path"] in self.pages
            and header_values(scope, b"sec-fetch-mode") == ["navigate"]
            and header_values(scope, b"sec-fetch-dest") == ["document"]
        )


async def _respond_line(send: Send, error: RequestError) -> None:
    await respond(send, error.status, f"{error}\n")


def _is_forwarded(name: bytes) -> bool:
    """Whether a header may state another host, scheme, path or client than the connection's."""
    return name == b"forwarded" or name.startswith(b"x-")


def _scheme(scope: Scope, schemes: frozenset[str]) -> str:
    """The scheme that the browser used.

    A proxy's word is taken only for hosts that are allowed because there is one in front.
    """
    if len(schemes) == 1:
        return next(iter(schemes))
    forwarded = header_values(scope, b"x-forwarded-proto")
    return forwarded[0] if forwarded in (["http"], ["https"]) else str(scope.get("scheme", "http"))

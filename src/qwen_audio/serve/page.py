"""A web page beside the HTTP API, in one server: both use the model on the engine's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from .asgi import App, Receive, Scope, Send
from .gate import OPEN_PATHS
from .model_thread import ModelThread

__all__ = ["BuildPage", "Page", "beside_page"]

_API_PREFIX = "/v1/"
_API_PATHS = OPEN_PATHS | {"/metrics"}


class Page(Protocol):
    """What is served beside the API.

    Attributes:
        app: answers its requests.
        content_policy: the Content-Security-Policy of its responses.
    """

    @property
    def app(self) -> App:
        """Answers its requests."""

    @property
    def content_policy(self) -> str:
        """The Content-Security-Policy of its responses."""

    def close(self) -> None:
        """End its work."""


BuildPage: TypeAlias = Callable[[ModelThread], Page]
"""Makes a page that uses the model on a thread."""


def beside_page(api: App, page: App) -> App:
    """An application that answers the API's routes by `api`, and all others by `page`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        is_api = path.startswith(_API_PREFIX) or path in _API_PATHS
        await (api if is_api else page)(scope, receive, send)

    return app

"""Requests whose results no page has read yet: bounded, as Gradio keeps every result until then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qwen_audio.serve.asgi import RequestError

__all__ = ["PendingRequests"]

_PAGE_REQUESTS = 32
"""More than a page ever has pending."""
_ABANDONED_SECONDS = 30.0
"""A page that reads no results for so long is gone."""
_BUSY = "Too many requests are waiting: try again in a few seconds."


@dataclass(eq=False)
class _Page:
    """Attributes: requests that are pending, open streams of results, time of the last change."""

    requests: int = 0
    streams: int = 0
    changed: float = 0.0


class PendingRequests:
    """Counts by page of requests whose results haven't been read.

    Args:
        limit: for all pages together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pages: dict[str, _Page] = {}

    def __contains__(self, page_id: str) -> bool:
        return page_id in self._pages

    def add(self, page_id: str) -> None:
        """Count a request.

        Raises:
            RequestError: (503) if too many are pending.
        """
        page = self._pages.get(page_id, _Page())
        total = sum(each.requests for each in self._pages.values())
        if page.requests >= _PAGE_REQUESTS or total >= self.limit:
            raise RequestError(503, _BUSY)
        page.requests, page.changed = page.requests + 1, time.monotonic()
        self._pages[page_id] = page

    def remove(self, page_id: str) -> None:
        """A request was refused, or its result read."""
        if page := self._pages.get(page_id):
            page.requests = max(0, page.requests - 1)  # a cancelled one may end twice
            self._forget_finished(page_id, page)

    @contextmanager
    def reading(self, page_id: str) -> Iterator[None]:
        """While a stream of results is open.

        Raises:
            RequestError: (404) if the page has no request pending.
        """
        page = self._pages.get(page_id)
        if page is None:
            raise RequestError(404, "This page waits for no results.")
        page.streams += 1
        try:
            yield
        finally:
            page.streams, page.changed = page.streams - 1, time.monotonic()
            self._forget_finished(page_id, page)

    def drop(self, page_id: str) -> None:
        """Gradio has dropped the results of a page, as its stream broke."""
        self._pages.pop(page_id, None)

    def abandoned(self) -> list[str]:
        """Pages that have read no results for a while."""
        since = time.monotonic() - _ABANDONED_SECONDS
        return [
            page_id
            for page_id, page in self._pages.items()
            if not page.streams and page.changed < since
        ]

    def _forget_finished(self, page_id: str, page: _Page) -> None:
        if page.requests <= 0 and not page.streams:
            self._pages.pop(page_id, None)

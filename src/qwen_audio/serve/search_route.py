"""`POST /v1/search`: windows of the server's collection, by sound or by words of captions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from qwen_audio.analysis.files import json_value
from qwen_audio.collection.search import search_by_vector, search_by_words
from qwen_audio.collection.search_results import SearchResult, SearchResults
from qwen_audio.collection.table import WindowTable
from qwen_audio.errors import OptionError

from .api_errors import ParameterError
from .audio_data import recording_texts
from .embedding_route import recording_vectors
from .engine import BusyError
from .result_schemas import SearchResponse
from .schemas import SearchRequest
from .service import Service, schema_of

__all__ = ["search_router"]


def search_router(service: Service, table: WindowTable | None) -> APIRouter:
    """The route.

    Args:
        table: of the collection; None: the route says that there is none.
    """
    router = APIRouter()
    searches = _Searches(service.limits.queue_size)

    @router.post(
        "/v1/search",
        openapi_extra=schema_of(SearchRequest),
        responses={200: {"model": SearchResponse}},
    )
    async def search(request: Request) -> Response:
        """Windows of the server's collection: similar to a recording, or by captions."""
        body = service.parsed(request, SearchRequest)
        if table is None:
            raise ParameterError(
                404,
                "There is no collection here: start the server with --collection.",
                None,
                "not_found",
            )
        if (body.input is None) == (body.caption is None):
            raise OptionError("search takes one of input (a recording) and caption (words)")
        if body.caption is not None:
            words = body.caption
            if not table.has_captions:
                raise OptionError("caption=: the collection has no captions: give input")
            results = await searches.run(lambda: search_by_words(table, words, limit=body.limit))
        else:
            async with service.uploads(request, recording_texts(body.input or "")) as uploads:
                found = await recording_vectors(service, request, uploads, table.spec)
            vectors = found[-1]
            results = await searches.run(
                lambda: search_by_vector(table, vectors()[0], limit=body.limit)
            )
        return JSONResponse(_response(service, results))

    return router


class _Searches:
    """Runs searches one at a time, in a thread of their own."""

    def __init__(self, queue_size: int) -> None:
        self._thread = ThreadPoolExecutor(1, "search")
        self._queue_size, self._waiting = queue_size, 0

    async def run(self, work: Callable[[], SearchResults]) -> SearchResults:
        """Its results. Raises BusyError if too many others wait."""
        if self._waiting >= self._queue_size:
            raise BusyError("Too many searches are waiting: try again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1


def _response(service: Service, results: SearchResults) -> dict[str, Any]:
    return {
        "object": "list",
        "model": service.model_id,
        "data": list(map(_item, results)),
        "metric": results.metric,
        "typical_score": results.typical_score,
        "spec": results.spec.settings,
        "fingerprint": results.spec.fingerprint,
    }


def _item(result: SearchResult) -> dict[str, Any]:
    return {
        "object": "search_result",
        "rank": result.rank,
        "score": result.score,
        "source": result.source,
        "window": result.window,
        "start_seconds": result.start_seconds,
        "end_seconds": result.end_seconds,
        "caption": result.caption,
        "columns": {name: json_value(value) for name, value in result.columns.items()},
    }

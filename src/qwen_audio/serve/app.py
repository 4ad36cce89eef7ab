"""The HTTP API: routes, what it says of itself, and errors in OpenAI's form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from qwen_audio import __version__
from qwen_audio.collection.table import WindowTable
from qwen_audio.errors import QwenAudioError

from .activation_route import activation_router
from .api_errors import ErrorResponse, error_response
from .asgi import App, ClientDisconnectedError, RequestError, Send
from .chat_route import chat_router
from .embedding_route import embedding_router
from .gate import OPEN_PATHS, ApiGate
from .hosts import AllowedHosts
from .keys import ApiKeys
from .middleware import RequestFilter
from .openapi import complete_schema
from .response_schemas import ChatCompletionChunk, Health, ModelCard, ModelList, Readiness
from .schemas import (
    ActivationsRequest,
    ChatRequest,
    ClassifyRequest,
    EmbeddingsRequest,
    ScoreRequest,
    SearchRequest,
    TranscriptionRequest,
)
from .score_routes import score_router
from .search_route import search_router
from .service import Service
from .transcription_route import transcription_router

__all__ = ["build_app"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_BODIES = (
    ChatRequest,
    EmbeddingsRequest,
    ActivationsRequest,
    ScoreRequest,
    ClassifyRequest,
    SearchRequest,
    TranscriptionRequest,
)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>qwen-audio serve</title>
<style>body {{ font: 16px/1.5 system-ui; max-width: 50em; margin: 2em auto; padding: 0 1em }}
code {{ background: #8882; padding: 0 .3em }} dd {{ margin: 0 0 1em 2em }}</style>
<h1>qwen-audio serve</h1><p>{model}. The schema of all requests is at
<a href="openapi.json">openapi.json</a>.</p><dl>{routes}</dl></html>
"""


def build_app(
    service: Service, hosts: AllowedHosts, keys: ApiKeys, collection: WindowTable | None = None
) -> tuple[App, ApiGate]:
    """The application with its middleware, and the gate, which counts requests in flight."""
    app = FastAPI(
        title="qwen-audio serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.include_router(chat_router(service))
    app.include_router(embedding_router(service))
    app.include_router(activation_router(service))
    app.include_router(score_router(service))
    app.include_router(transcription_router(service))
    app.include_router(search_router(service, collection))
    _add_status_routes(app, service)
    _add_pages(app, service, OPEN_PATHS if keys else None)
    for status, what in ((404, "route"), (405, "method")):
        app.add_exception_handler(status, _no_such(status, what))
    app.add_exception_handler(ClientDisconnectedError, _disconnected)
    app.add_exception_handler(QwenAudioError, _any_error)
    app.add_exception_handler(Exception, _any_error)
    posts = [path for path, methods in app.openapi()["paths"].items() if "post" in methods]
    gate = ApiGate(app, service.limits, keys, service.metrics.add_response, posts)

    async def refuse(send: Send, error: RequestError) -> None:
        await error_response(error).send(send)

    return RequestFilter(gate, hosts=hosts, policy=_POLICY, pages=("/docs",), refuse=refuse), gate


def _add_status_routes(app: FastAPI, service: Service) -> None:
    """Routes that say what the server is, and how it is."""

    @app.get("/v1/models", responses={200: {"model": ModelList}})
    async def models() -> Response:
        """The model, with its taps."""
        return JSONResponse({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name:path}", responses={200: {"model": ModelCard}, 404: {}})
    async def model(name: str) -> Response:
        """The model, by its name."""
        service.check_model(name)
        return JSONResponse(_model(service))

    @app.get("/health", responses={200: {"model": Health}})
    async def health() -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    @app.get("/ready", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
    async def ready() -> Response:
        """Whether requests are accepted: not while weights are read, nor while it stops."""
        is_ready = service.engine.is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI, service: Service, open_paths: Collection[str] | None) -> None:
    """Routes that say what other routes there are."""
    bodies = (
        *(ChatRequest, ChatCompletionChunk, EmbeddingsRequest, ActivationsRequest),
        *(ScoreRequest, ClassifyRequest, TranscriptionRequest, SearchRequest),
    )
    schema = complete_schema(app.openapi(), bodies, open_paths)
    page = _page(service, schema)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(schema)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page)


def _model(service: Service) -> dict[str, Any]:
    model = service.model
    dimensions, limits = model.dimensions, model.pipeline.checkpoint.family.window_limits
    return {
        "id": service.model_id,
        "object": "model",
        "created": 0,
        "owned_by": "qwen-audio",
        "dtype": model.dtype,
        "quantization": model.quantization,
        "default_prompt": service.default_prompt,
        "transcribes": service.transcription_prompt is not None,
        "min_window_seconds": limits.min_seconds,
        "max_window_seconds": limits.max_seconds,
        "taps": [
            {
                "name": str(tap),
                "width": dimensions.width(tap),
                "row_seconds": dimensions.times(tap).pattern_seconds,
            }
            for tap in model.taps
        ],
    }


def _page(service: Service, schema: dict[str, Any]) -> str:
    routes = "".join(
        f"<dt><code>{method.upper()} {escape(path)}</code></dt>"
        f"<dd>{escape(operation.get('description', ''))}</dd>"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    return _PAGE.format(model=escape(service.model_id), routes=routes)


def _no_such(status: int, what: str) -> Callable[..., Awaitable[Response]]:
    async def respond(_: Request, error: Any) -> Response:
        response = _json(ErrorResponse(status, f"There is no such {what} here: see /docs."))
        response.headers.update(getattr(error, "headers", None) or {})  # Allow
        return response

    return respond


async def _disconnected(*_: Any) -> Response:
    """What nobody reads: nginx's status for clients that went away."""
    return Response(status_code=499)


async def _any_error(_: Request, error: Exception) -> Response:
    return _json(error_response(error))


def _json(response: ErrorResponse) -> Response:
    return JSONResponse(response.body, response.status, response.headers)

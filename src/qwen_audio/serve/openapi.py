"""The schema of the HTTP API: what FastAPI doesn't know of bodies, errors and keys."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from .response_schemas import ErrorResponseBody

__all__ = ["complete_schema"]

_ERRORS = {
    400: "What can't be used: a parameter, a recording, a malformed request",
    401: "The API key is missing or wrong",
    403: "Another site's page, or a host that the server doesn't answer for",
    404: "No such model; no collection; a model that doesn't transcribe",
    406: "No such format of hidden states",
    408: "The request was sent too slowly",
    413: "A body, recording or response above a limit",
    415: "A body that isn't JSON, or a form with a file",
    429: "The queue is full: see Retry-After",
    503: "Weights are being read, the server is stopping, or memory is short: see Retry-After",
}
_OF_ALL = (400, 403)
_OF_BODIES = (404, 408, 413, 415, 429, 503)


def complete_schema(
    schema: dict[str, Any], models: Collection[type[BaseModel]], open_paths: Collection[str] | None
) -> dict[str, Any]:
    """FastAPI's schema, with bodies, which it doesn't parse, errors, and keys.

    Args:
        models: that routes refer to by name.
        open_paths: that need no key; None: none does.
    """
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    described: list[type[BaseModel]] = [*models, ErrorResponseBody]
    for model in described:
        body = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= body.pop("$defs", {})
        schemas[model.__name__] = body
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)  # FastAPI's own form of errors, which no route has
            statuses = {*_OF_ALL, *(_OF_BODIES if "requestBody" in operation else ())}
            statuses |= {int(status) for status in responses if int(status) in _ERRORS}
            if open_paths is not None and path not in open_paths:
                operation["security"] = [{"key": []}]
                statuses.add(401)
            for status in sorted(statuses):
                response = responses.setdefault(str(status), {})
                response["description"] = _ERRORS[status]
                reference = {"$ref": f"#/components/schemas/{ErrorResponseBody.__name__}"}
                response.setdefault("content", {"application/json": {"schema": reference}})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    if open_paths is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return schema

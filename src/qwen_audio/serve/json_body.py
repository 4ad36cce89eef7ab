"""Strict JSON: what parsers read differently, or can't write again, is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from .asgi import RequestError, Scope, header_values

__all__ = ["check_json_headers", "check_not_compressed", "parse_json"]

_MAX_DEPTH = 32
_MAX_INTEGER = 2**53
"""Larger integers aren't exact in JavaScript."""


def check_json_headers(scope: Scope) -> None:
    """Raises RequestError (415) unless a request says that its body is JSON, not compressed.

    A page of another site can't send this content type without asking first.
    """
    media_types = [value.partition(";")[0] for value in header_values(scope, b"content-type")]
    if [media_type.strip().lower() for media_type in media_types] != ["application/json"]:
        raise RequestError(415, "The body must be application/json.")
    check_not_compressed(scope)


def check_not_compressed(scope: Scope) -> None:
    """Raises RequestError (415) for a body that is encoded."""
    encodings = header_values(scope, b"content-encoding")
    if any(encoding.lower() != "identity" for encoding in encodings):
        raise RequestError(415, "The body must not be compressed.")


def parse_json(data: bytes) -> Any:
    """A JSON document in UTF-8.

    Raises:
        RequestError: (400) if it is malformed; nested more than 32 deep; or has a duplicate key, an
            integer above 2⁵³, a number that isn't finite, or half of a surrogate pair.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_integer,
        )
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "The body is not valid JSON.") from error
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH + 1:
            raise RequestError(400, f"The body is nested more than {_MAX_DEPTH} deep.")
        level = [inner for each in level for inner in _children(each)]
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, str):
        _text_option(value)
    if isinstance(value, dict):
        for key in value:
            _text_option(key)
        return list(value.values())
    return value if isinstance(value, list) else []


def _text_option(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(400, "The body contains half of a surrogate pair.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > _MAX_INTEGER:
        raise ValueError("integer too large")
    return int(text)

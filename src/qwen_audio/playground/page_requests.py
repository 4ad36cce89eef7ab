"""What the page's scripts send: requests to its handlers, checked before Gradio sees them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from qwen_audio.serve.asgi import RequestError, Scope

__all__ = ["check_cancel", "check_page_id", "checked_join", "page_id_of_query"]

_PAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_JOIN_FIELDS = frozenset({"data", "fn_index", "session_hash", "event_data", "trigger_id"})
_CANCEL_FIELDS = frozenset({"event_id", "fn_index", "session_hash"})
_FILE_KEYS = frozenset({"meta", "path", "url"})
"""Keys by which Gradio reads a file or fetches a URL."""
_INVALID = "This is not a request of the page: reload it and try again."


def checked_join(body: Any, functions: frozenset[int]) -> dict[str, Any]:
    """The request to call a function of the page, with the fields that Gradio needs.

    Raises:
        RequestError: (400) for other fields or types, a function that the page doesn't call, values
            that it doesn't send, or the name of a file or URL.
    """
    if not isinstance(body, dict) or not _JOIN_FIELDS.issuperset(body):
        raise RequestError(400, _INVALID)
    function, values, trigger = body.get("fn_index"), body.get("data"), body.get("trigger_id")
    if type(function) is not int or function not in functions:
        raise RequestError(400, _INVALID)
    if not isinstance(values, list) or [type(value) for value in values] != [dict]:
        raise RequestError(400, _INVALID)
    if trigger is not None and type(trigger) is not int:
        raise RequestError(400, _INVALID)
    if _names_file(values):
        raise RequestError(400, "Requests that name a file or URL are refused.")
    page_id = check_page_id(body.get("session_hash"))
    return {"data": values, "fn_index": function, "session_hash": page_id, "trigger_id": trigger}


def check_cancel(body: Any) -> None:
    """Raises RequestError (400) unless this cancels one call of a function of a page."""
    if not isinstance(body, dict) or not _CANCEL_FIELDS.issuperset(body):
        raise RequestError(400, _INVALID)
    event, function = body.get("event_id"), body.get("fn_index", 0)
    if not isinstance(event, str) or not _EVENT_ID.fullmatch(event) or type(function) is not int:
        raise RequestError(400, _INVALID)
    check_page_id(body.get("session_hash", "none"))


def check_page_id(page_id: Any) -> str:
    """The id that an open page makes up for itself. Raises RequestError (400) for any other."""
    if not isinstance(page_id, str) or not _PAGE_ID.fullmatch(page_id):
        raise RequestError(400, _INVALID)
    return page_id


def page_id_of_query(scope: Scope) -> str:
    """The page that a request's query names. Raises RequestError (400) unless it names one."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return check_page_id(next(iter(query.get("session_hash", [])), None))


def _names_file(value: Any) -> bool:
    """Whether any nested object has a key by which Gradio reads a file or fetches a URL."""
    if isinstance(value, dict):
        return not _FILE_KEYS.isdisjoint(value) or any(map(_names_file, value.values()))
    return isinstance(value, list) and any(map(_names_file, value))

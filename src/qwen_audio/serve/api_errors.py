"""Errors as responses in OpenAI's form: what a client did wrong, and where in its request."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import Any

from qwen_audio.errors import (
    AudioError,
    DecodeLimitError,
    MissingExtraError,
    OptionError,
    OutOfMemoryError,
    TapError,
)

from .asgi import Header, RequestError, Send, respond
from .engine import BusyError, NotReadyError

__all__ = ["ErrorResponse", "ParameterError", "error_response"]

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = {429: 2, 503: 5}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_CODES = {
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    429: "queue_full",
    500: "internal_error",
    503: "unavailable",
}
_PLACE = re.compile(r"(?:messages|input|file)\b[\w.\[\]]*")
"""A JSON path, which recordings are named by, at the beginning of a message."""
_OPTION = re.compile(r"(\w+)=")
_PARAMETERS = {"max_new_tokens": "max_tokens"}
"""What options of the package are called in requests."""


class ParameterError(RequestError):
    """A part of a request that can't be used.

    Args:
        param: its JSON path, such as "messages[0].content".
        code: a short name for programs.
    """

    def __init__(self, status: int, message: str, param: str | None, code: str) -> None:
        super().__init__(status, message)
        self.param, self.code = param, code


@dataclass(frozen=True)
class ErrorResponse:
    """A response that says what went wrong."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code or _CODES.get(self.status),
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        """What the client's library goes by."""
        headers = {}
        if self.status in _RETRY_SECONDS:
            headers["retry-after"] = str(_RETRY_SECONDS[self.status])
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers

    async def send(self, send: Send) -> None:
        """Respond with it."""
        headers: list[Header] = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        await respond(send, self.status, json.dumps(self.body), "application/json", headers)


def error_response(error: BaseException) -> ErrorResponse:
    """The response to a request that failed; an error that no client caused is logged."""
    text = str(error)
    match error:
        case ParameterError():
            return ErrorResponse(error.status, text, error.param, error.code)
        case RequestError():
            return ErrorResponse(error.status, text)
        case BusyError():
            return ErrorResponse(429, text)
        case NotReadyError() | OutOfMemoryError():
            return ErrorResponse(503, text)
        case DecodeLimitError():
            place = _PLACE.match(text)
            return ErrorResponse(413, text, place and place[0], "audio_too_large")
        case AudioError():
            place = _PLACE.match(text)
            return ErrorResponse(400, text, place and place[0], "invalid_audio")
        case OptionError() | TapError():
            option = _OPTION.match(text)
            name = option and _PARAMETERS.get(option[1], option[1])
            return ErrorResponse(400, text, name, "invalid_value")
        case MissingExtraError():
            return ErrorResponse(406, text)
    _LOG.error("a request failed", exc_info=error)
    return ErrorResponse(500, "An internal error occurred, which the server has logged.")

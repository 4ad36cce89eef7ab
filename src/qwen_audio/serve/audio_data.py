"""Recordings in requests: data URLs and base64, as bytes."""

from __future__ import annotations

import base64
import binascii
import re

from .api_errors import ParameterError
from .recordings import Upload

__all__ = ["decoded_upload"]

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://|data:|file:", re.IGNORECASE)


def decoded_upload(place: str, text: str) -> Upload:
    """The bytes that a text stands for.

    Args:
        place: JSON path of the text, which is what the recording is called in messages.
        text: `data:…;base64,…`, or base64 alone. The media type of a data URL is not read: the
            bytes say what they are.

    Raises:
        ParameterError: (400) for anything else.
    """
    match = _DATA_URL.match(text)
    if match is None and _ADDRESS.match(text):
        raise ParameterError(
            400,
            f"{place} is an address, which this server doesn't fetch: send the bytes of the file "
            "as data:audio/wav;base64,…",
            place,
            "invalid_url",
        )
    start = 0 if match is None else match.end()
    try:
        data = base64.b64decode(text[start:] if start else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ParameterError(
            400, f"{place} is not base64 ({error}).", place, "invalid_base64"
        ) from None
    if not data:
        raise ParameterError(400, f"{place} is empty.", place, "invalid_audio")
    return Upload(place, data)

"""Recordings in requests: data URLs, base64, and what was fetched, as bytes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .api_errors import ParameterError
from .recordings import Upload

__all__ = ["decoded_upload", "recording_texts"]

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,20}://|data:|file:", re.IGNORECASE)


def recording_texts(given: str | Sequence[str]) -> dict[str, str]:
    """JSON path → what a request says there: the `input` of one recording, or of several."""
    if isinstance(given, str):
        return {"input": given}
    return {f"input[{number}]": text for number, text in enumerate(given)}


def decoded_upload(
    place: str, text: str, fetched: Mapping[str, bytes] = MappingProxyType({})
) -> Upload:
    """The bytes that a text stands for.

    Args:
        place: JSON path of the text, which is what the recording is called in messages.
        text: `data:…;base64,…`, or base64 alone. The media type of a data URL is not read: the
            bytes say what they are.
        fetched: bytes of recordings whose texts are addresses, by place.

    Raises:
        ParameterError: (400) for anything else.
    """
    data = fetched.get(place)
    if data is None:
        data = _decoded(place, text)
    if not data:
        raise ParameterError(400, f"{place} is empty.", place, "invalid_audio")
    return Upload(place, data)


def _decoded(place: str, text: str) -> bytes:
    match = _DATA_URL.match(text)
    if match is None and _ADDRESS.match(text):
        raise ParameterError(
            400,
            f"{place} is an address that this server doesn't fetch: send the bytes of the file as "
            "data:audio/wav;base64,…",
            place,
            "invalid_url",
        )
    start = 0 if match is None else match.end()
    try:
        return base64.b64decode(text[start:] if start else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ParameterError(
            400, f"{place} is not base64 ({error}).", place, "invalid_base64"
        ) from None

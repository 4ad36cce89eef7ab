"""Names of files as text: on one line, and reversible where they aren't UTF-8; checks of paths."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from urllib.parse import quote, unquote_to_bytes

__all__ = [
    "UNPRINTABLE",
    "exists",
    "file_name",
    "is_file",
    "is_folder",
    "is_uri",
    "path_from_text",
    "path_to_text",
    "printable",
]

UNPRINTABLE = re.compile(
    # Control characters, line and paragraph separators, overrides of the text's direction, and
    # surrogates: by these Python represents the bytes of names that aren't UTF-8.
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_FILE_SCHEME = "file://"


def printable(text: str) -> str:
    """A text as one line that any terminal and any UTF-8 file can hold: `a\\n\\xff.wav`."""
    return UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return _ESCAPES.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def path_to_text(path: str) -> str:
    """A local path as text that UTF-8 can hold, from which `path_from_text` opens the same file.

    That is the path itself; or, where its bytes aren't UTF-8, the absolute path's `file://` URI
    (RFC 8089), in which they are percent-encoded: `file:///music/caf%E9.wav`.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        try:
            encoded = os.fsencode(os.path.abspath(path))  # noqa: PTH100 (resolve follows links)
        except UnicodeEncodeError:  # no file has this name: it isn't made of bytes
            return printable(path)
        return _FILE_SCHEME + quote(encoded)
    return path


def is_uri(text: str) -> bool:
    """Whether a text is the URI of another file system, not a local path (or its URI)."""
    return "://" in text and not _has_file_scheme(text)


def _has_file_scheme(text: str) -> bool:
    return text[: len(_FILE_SCHEME)].lower() == _FILE_SCHEME


def path_from_text(text: str) -> str:
    """The local path that a text names: of a `file://` URI its path, of anything else itself.

    fsspec writes URIs without encoding them: if there is only a file of the encoded name, it is
    the one.
    """
    if not _has_file_scheme(text):
        return text
    path = text[len(_FILE_SCHEME) :]
    path = path.removeprefix("localhost") if path.startswith("localhost/") else path
    decoded = os.fsdecode(unquote_to_bytes(path))
    return path if exists(path) and not exists(decoded) else decoded


def file_name(source: str) -> str:
    """The last part of a path or URI, to be shown."""
    return printable(PurePath(path_from_text(source)).name)


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; False for a name that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 (Path's method raises for too long names)


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder; False for a name that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112 (Path's method raises for too long names)


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 (Path's method raises for too long names)

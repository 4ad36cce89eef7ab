"""Forms with files (multipart/form-data), in memory: what parsers read differently is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .asgi import RequestError, Scope, header_values
from .json_body import check_not_compressed

__all__ = ["form_boundary", "parse_form"]

_MAX_PARTS = 32
_HEADER_BYTES = 4 * 2**10
_ENCODINGS = frozenset({b"", b"7bit", b"8bit", b"binary"})


def form_boundary(scope: Scope) -> bytes:
    """What separates the parts of a form.

    Raises:
        RequestError: (415) unless a request says that its body is a form, not compressed.
    """
    check_not_compressed(scope)
    types = header_values(scope, b"content-type")
    media_type, options = parse_options_header(types[0] if len(types) == 1 else "")
    boundary = options.get(b"boundary")
    if media_type.lower() != b"multipart/form-data" or not boundary:
        raise RequestError(415, "The body must be multipart/form-data, with a boundary.")
    return boundary


def parse_form(boundary: bytes, data: bytes) -> dict[str, str | bytes]:
    """The fields of a form by name: text, or the bytes of a file.

    Raises:
        RequestError: (400) if it is malformed or incomplete, or has a field twice, one that isn't
            UTF-8, or more than 32.
    """
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(data)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, "The body is not a valid form.") from error
    if not parts.has_ended:
        raise RequestError(400, "The form is incomplete.")
    return parts.fields


@dataclass
class _Parts:
    """Collects parts as the parser comes upon them."""

    fields: dict[str, str | bytes] = field(default_factory=dict)
    has_ended: bool = False
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _content: bytearray = field(default_factory=bytearray)

    def callbacks(self) -> dict[str, object]:
        """As the parser takes them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._content.extend(
                memoryview(data)[start:end]
            ),
            "on_part_end": self._end,
            "on_end": self._end_form,
        }

    def _begin(self) -> None:
        self._headers, self._content = {}, bytearray()
        if len(self.fields) >= _MAX_PARTS:
            raise RequestError(400, f"The form has more than {_MAX_PARTS} fields.")

    def _add(self, header: bytearray, part: bytes) -> None:
        header += part
        if len(header) + sum(map(len, self._headers.values())) > _HEADER_BYTES:
            raise RequestError(400, "The headers of a field are too long.")

    def _end_header(self) -> None:
        self._headers[bytes(self._name).strip().lower()] = bytes(self._value).strip()
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise RequestError(400, "A field of the form has no name.")
        if name in self.fields:
            raise RequestError(400, f"The form has {name!r:.80} twice.")
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _ENCODINGS:
            raise RequestError(400, f"{name!r:.80} is encoded: send its bytes as they are.")
        content = bytes(self._content)
        try:
            self.fields[name] = content if b"filename" in options else content.decode()
        except UnicodeDecodeError as error:
            raise RequestError(400, f"{name!r:.80} is not UTF-8.") from error

    def _end_form(self) -> None:
        self.has_ended = True

"""Bodies: size, deadlines, memory; strict JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qwen_audio as qa
from asgi import request
from qwen_audio.serve.asgi import (
    ClientDisconnectedError,
    Receive,
    RequestError,
    Scope,
    Send,
    respond,
)
from qwen_audio.serve.body import ByteBudget, content_length, read_body
from qwen_audio.serve.json_body import check_json_headers, parse_json
from qwen_audio.serve.limits import ServerLimits

LIMITS = ServerLimits(body_idle_seconds=0.02, body_seconds=0.2, body_bytes_per_second=1000)
CHUNKED = (b"transfer-encoding", b"chunked")


def length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", str(size).encode()


def read(*headers: tuple[bytes, bytes], parts: Any = (b"",), **options: Any) -> tuple[int, str]:
    """Status and text of an application that answers with the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            data = await read_body(scope, receive, 10, LIMITS, "Too large.")
        except RequestError as error:
            await respond(send, error.status, str(error))
        else:
            await respond(send, 200, data.decode())

    response = asyncio.run(request(app, "POST", "/", headers, parts, **options))
    return response.status, response.text


def test_bodies_are_read() -> None:
    assert read(length(4), parts=[b"ab", b"", b"cd"]) == (200, "abcd")
    assert read(CHUNKED, parts=[b"0123456789"]) == (200, "0123456789")
    assert read() == (200, "")


@pytest.mark.parametrize(
    ("headers", "parts", "status"),
    [
        ([length(11)], [], 413),  # before anything is read
        ([CHUNKED], [b"012345", b"67890"], 413),
        ([CHUNKED, length(1)], [b"012345", b"67890"], 413),
        ([length(3)], [b"01", b"23"], 400),
        ([], [b"0"], 400),
        ([length(3), length(3)], [b"012"], 400),
        *(
            ([(b"content-length", value)], [b"0"], 400)
            for value in (b"", b"-1", b"+1", b"1.0", b"0x1", b"\xb2", b"9" * 5000, b"1, 1")
        ),
    ],
)
def test_bodies_of_wrong_size_are_refused(
    headers: list[tuple[bytes, bytes]], parts: list[bytes], status: int
) -> None:
    assert read(*headers, parts=parts)[0] == status


def test_bodies_that_stall_are_refused() -> None:
    assert read(length(9), parts=[b"0123"], after="stall")[0] == 408


@pytest.mark.parametrize(
    ("bytes_per_second", "seconds"), [(10**9, 1000.0), (1, 0.1)], ids=["slowly", "for ever"]
)
def test_bodies_that_trickle_are_refused(bytes_per_second: int, seconds: float) -> None:
    async def trickle() -> Any:
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b"x", "more_body": True}

    limits = ServerLimits(
        body_idle_seconds=0.02, body_seconds=seconds, body_bytes_per_second=bytes_per_second
    )
    scope = {"headers": [length(10**6)]}
    with pytest.raises(RequestError, match="too slowly") as error:
        asyncio.run(read_body(scope, trickle, 10**6, limits, ""))
    assert error.value.status == 408


def test_a_client_that_disconnects_gets_no_response() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnectedError):
        asyncio.run(read_body({"headers": [length(5)]}, gone, 10, LIMITS, ""))


def test_memory_is_reserved() -> None:
    budget = ByteBudget(10)
    assert budget.reserve(6)
    assert not budget.reserve(5)
    assert budget.reserve(4)
    budget.release(6)
    assert budget.reserved == 4


@given(st.lists(st.binary(max_size=20), max_size=3), st.booleans())
def test_no_length_is_an_error(values: list[bytes], chunked: bool) -> None:
    headers = [(b"content-length", value) for value in values] + [CHUNKED] * chunked
    with contextlib.suppress(RequestError):
        found = content_length({"headers": headers})
        assert found is None or found >= 0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1] [2]",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"[" * 34 + b"]" * 34,
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"-1e999999999",
        b"9007199254740993",
        b"9" * 10_000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        "[1]".encode("utf-16"),
        b"\x1f\x8b\x08\x00",
        b'"\x00"',
        b"'a'",
        b"0x10",
        b"[1,]",
    ],
)
def test_what_is_no_plain_json_is_a_bad_request(text: bytes) -> None:
    with pytest.raises(RequestError) as error:
        parse_json(text)
    assert error.value.status == 400


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(JSON)
def test_plain_json_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=60) | st.text('{}[]":,\\u019eEd-.nNat ', max_size=40).map(str.encode))
def test_any_bytes_are_json_or_a_bad_request(data: bytes) -> None:
    with contextlib.suppress(RequestError):
        json.dumps(parse_json(data), allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"text/plain; application/json")],
        [(b"content-type", b"application/json"), (b"content-type", b"text/plain")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")],
    ],
)
def test_other_content_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(RequestError) as error:
        check_json_headers({"headers": headers})
    assert error.value.status == 415
    check_json_headers({"headers": [(b"content-type", b"Application/JSON; charset=utf-8")]})


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "5", None])
def test_limits_are_positive_numbers(value: Any) -> None:
    with pytest.raises(qa.OptionError, match="upload_bytes="):
        ServerLimits(upload_bytes=value)


def test_limits_of_decoding() -> None:
    decoding = ServerLimits(recording_seconds=60, upload_bytes=1000).decoding
    assert (decoding.max_seconds, decoding.max_stream_bytes) == (60, 1000)
    assert decoding.max_channel_samples == 60 * 8 * 48_000

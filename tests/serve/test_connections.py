"""Connections of a running server: bounded in number and time."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from qwen_audio import OptionError
from qwen_audio.serve.asgi import Receive, Scope, Send, respond
from qwen_audio.serve.limits import ServerLimits
from qwen_audio.serve.listen import listen, local_url
from qwen_audio.serve.server import ThreadedServer

IMPATIENT, PATIENT = (ServerLimits(connections=4, header_seconds=s) for s in (0.1, 60.0))
REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
DISCONNECTED = threading.Event()


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses all bodies unread; `/endless` responds without an end, `/never` doesn't."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/endless":
        gone = asyncio.create_task(disconnected(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
            await asyncio.sleep(0)
        DISCONNECTED.set()
    elif scope["path"] == "/never":
        await disconnected(receive)
    else:
        await respond(send, 413, "Too large.")


@contextmanager
def serving(limits: ServerLimits) -> Iterator[tuple[str, int]]:
    with listen("127.0.0.1", None, [0]) as sock, closing(ThreadedServer(app, sock, limits)):
        yield sock.getsockname()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving(IMPATIENT) as address:
        yield address


def connect(address: tuple[str, int], data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(address, timeout=10)
    connection.sendall(data)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection, without anything but a response before."""
    with connection:
        try:
            while connection.recv(2**16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: local",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nunfinished",
        REQUEST % b"" + b"GET /",
    ],
    ids=["silent", "headers", "body that was refused", "second request"],
)
def test_requests_that_stay_incomplete_are_closed(address: tuple[str, int], data: bytes) -> None:
    assert is_closed(connect(address, data))


def test_responses_that_nobody_reads_are_closed(address: tuple[str, int]) -> None:
    with connect(address, REQUEST % b"endless") as connection:
        connection.recv(10)
        assert DISCONNECTED.wait(30)


def test_too_many_connections_are_refused() -> None:
    with ExitStack() as stack:
        address = stack.enter_context(serving(PATIENT))
        for _ in range(4):
            stack.enter_context(connect(address, REQUEST % b"never"))
        connection = stack.enter_context(connect(address, REQUEST % b""))
        assert connection.recv(100).startswith(b"HTTP/1.1 503")


def test_what_is_no_http_is_a_bad_request(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(PATIENT) as address:
        check_bad_requests(address)
    assert capfd.readouterr() == ("", "")


def check_bad_requests(address: tuple[str, int]) -> None:
    for data in (b"\x16\x03\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        with connect(address, data) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("[::1]", "[::1]")]
)
def test_addresses_for_browsers(host: str, expected: str) -> None:
    try:
        sock = listen(host, None, [0])
    except OptionError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert local_url(host, sock) == f"http://{expected}:{sock.getsockname()[1]}/"

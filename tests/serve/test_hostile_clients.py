"""Clients that ask for too much, or send too little, get an error, and others their answers."""

from __future__ import annotations

import base64
import io
import json
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from api_requests import BASE64, CLIPS, KEY, URLS, post, request_without_reading, user, wait_for
from qwen_audio.serve.launch import RunningServer, launch_server
from qwen_audio.serve.limits import ApiLimits
from recordings import encode, sound

pytestmark = pytest.mark.slow

LIMITS = ApiLimits(recording_seconds=20, header_seconds=4, body_idle_seconds=4, fetch_seconds=20)
HEAD = (
    "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
    f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
).encode()


@pytest.fixture(scope="module")
def silent_host() -> Iterator[socket.socket]:
    """A host that accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture(scope="module")
def server(model: qa.AudioModel, silent_host: socket.socket) -> Iterator[RunningServer]:
    media = f"127.0.0.1:{silent_host.getsockname()[1]}"
    running = launch_server(model, api_keys=[KEY], limits=LIMITS, media_hosts=[media])
    running.wait_until_ready()
    yield running
    running.close()


def connect(server: RunningServer, data: bytes = b"") -> socket.socket:
    address = urlsplit(server.url)
    sock = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30)
    sock.sendall(data)
    return sock


def check_others_are_served(server: RunningServer) -> None:
    body: dict[str, Any] = {"model": "embedded", "input": URLS[0]}
    assert post(server, "v1/embeddings", body)[0] == 200
    body = {"model": "embedded", "messages": [user(URLS[0])], "max_tokens": 3}
    assert post(server, "v1/chat/completions", body)[0] == 200


def check_nothing_is_held(server: RunningServer, seconds: float = 20) -> None:
    gate, engine = server._gate, server._engine
    wait_for(lambda: gate.in_flight + engine.running + engine.waiting == 0, seconds)
    assert gate.bodies.reserved == engine._memory.reserved == 0


def forged(offset: int, form: str, number: int) -> bytes:
    """A WAV file with another number in its header."""
    data = bytearray(CLIPS[0])
    struct.pack_into(form, data, offset, number)
    return bytes(data)


def flac(seconds: float, rate: int, channels: int, total: int | None = None) -> bytes:
    """Silence, at some bytes a second; with another number of samples in its header."""
    file = io.BytesIO()
    shape = (round(seconds * rate), channels)
    soundfile.write(file, np.zeros(shape, np.float32), rate, format="FLAC")
    data = bytearray(file.getvalue())
    if total is not None:  # the last 36 bits before the checksum of STREAMINFO
        data[21] = data[21] & 0xF0 | total >> 32
        struct.pack_into(">I", data, 22, total & 0xFFFFFFFF)
    return bytes(data)


HOSTILE_FILES = {
    "silence": (flac(21, 8_000, 8), 413),
    "silence with a forged length": (flac(21, 8_000, 8, total=100), 413),
    "a length of days": (flac(0.5, 8_000, 1, total=2**36 - 1), 413),
    "silence as MP3": (encode(np.zeros((1, 21 * 8_000), np.float32), 8_000, "mp3"), 413),
    "silence as Opus": (encode(np.zeros((1, 21 * 8_000), np.float32), 8_000, "opus"), 413),
    "a rate of 1 Hz": (forged(24, "<I", 1), 400),
    "a rate of 4 GHz": (forged(24, "<I", 2**32 - 1), 400),
    "a rate of 0": (forged(24, "<I", 0), 400),
    "60 000 channels": (forged(22, "<H", 60_000), 400),
    "no channels": (forged(22, "<H", 0), 400),
    "0 bits a sample": (forged(34, "<H", 0), 400),
    "a chunk of 4 GB": (forged(16, "<I", 2**32 - 8), 400),
    "truncated": (CLIPS[0][:5_000], 400),
    "zeros": (bytes(10_000), 400),
    "compressed again": (b"\x1f\x8b\x08\x00" + bytes(100), 400),
    "a playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 400),
    "a list of files": (b"ffconcat version 1.0\nfile /etc/passwd\n", 400),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_files_that_are_not_what_they_say(server: RunningServer, name: str) -> None:
    data, status = HOSTILE_FILES[name]
    assert len(data) < 200_000
    text = base64.b64encode(data).decode()
    body: dict[str, Any] = {"model": "embedded", "input": [BASE64[0], text]}
    found, _, response = post(server, "v1/embeddings", body)
    error = json.loads(response)["error"]
    assert (found, error["param"]) == (status, "input[1]"), error
    assert "\n" not in error["message"]
    assert "root:" not in error["message"]
    body = {"model": "embedded", "messages": [user(f"data:;base64,{text}")], "stream": True}
    assert post(server, "v1/chat/completions", body)[0] == status
    check_nothing_is_held(server)


def test_bodies_of_60_mb(server: RunningServer) -> None:
    """Refused at once where they state their length, and else as soon as they exceed the limit."""
    size = 60 * 2**20
    with connect(server, HEAD + f"Content-Length: {size}\r\n\r\n{{".encode()) as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")
    chunk = b"%x\r\n%b\r\n" % (2**20, bytes(2**20))
    sent = 0
    with connect(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n") as sock:
        selector = selectors.DefaultSelector()
        selector.register(sock, selectors.EVENT_READ)
        while not selector.select(0):
            sock.sendall(chunk)
            sent += 2**20
            assert sent <= size
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")
    assert sent >= LIMITS.request_bytes
    check_others_are_served(server)
    check_nothing_is_held(server)


def test_200_connections_that_are_half_open(server: RunningServer) -> None:
    """They are closed in time; meanwhile others are served."""
    beginnings = [
        b"",
        HEAD,
        HEAD + b'Content-Length: 40000000\r\n\r\n{"model"',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"model"\r\n',
    ]
    started = time.monotonic()
    with ExitStack() as stack:
        connections = [
            stack.enter_context(connect(server, beginnings[number % len(beginnings)]))
            for number in range(200)
        ]
        wait_for(lambda: server._gate.in_flight == 100)
        check_others_are_served(server)
        for number, connection in enumerate(connections):
            received = connection.recv(1000)
            assert received[:12] == (b"" if number % 4 < 2 else b"HTTP/1.1 408")
    assert time.monotonic() - started < 30
    check_nothing_is_held(server)


@pytest.mark.parametrize(
    ("path", "options", "param"),
    [
        ("v1/chat/completions", {"max_tokens": 0}, "max_tokens"),
        ("v1/embeddings", {"prompt": "x"}, "prompt"),
        ("v1/activations", {"taps": ["mel"], "generate": 1}, "generate"),
    ],
)
def test_nothing_is_fetched_for_bad_options(
    server: RunningServer,
    silent_host: socket.socket,
    path: str,
    options: dict[str, Any],
    param: str,
) -> None:
    url = f"http://127.0.0.1:{silent_host.getsockname()[1]}/a.wav"
    part = {"type": "audio_url", "audio_url": {"url": url}}
    asked = (
        {"messages": [{"role": "user", "content": [part]}]} if "chat" in path else {"input": url}
    )
    status, _, data = post(server, path, {"model": "embedded", **asked, **options})
    assert (status, json.loads(data)["error"]["param"]) == (400, param)
    silent_host.settimeout(0)
    with pytest.raises(BlockingIOError):
        silent_host.accept()


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_go_away_while_recordings_are_fetched(
    server: RunningServer, silent_host: socket.socket, stream: bool
) -> None:
    url = f"http://127.0.0.1:{silent_host.getsockname()[1]}/a.wav"
    part = {"type": "audio_url", "audio_url": {"url": url}}
    messages = [{"role": "user", "content": [part]}]
    body = {"model": "embedded", "messages": messages, "stream": stream}
    with request_without_reading(server, json.dumps(body).encode()):
        silent_host.settimeout(20)
        fetching, _ = silent_host.accept()
        check_others_are_served(server)
    with fetching:
        fetching.settimeout(5)  # fetching would wait for twice as long
        assert fetching.recv(1000).startswith(b"GET /a.wav HTTP/1.1\r\n")
        assert fetching.recv(1000) == b""
    check_nothing_is_held(server, 1)


def test_a_queue_of_clients_that_go_away(server: RunningServer) -> None:
    """Those that wait, too, leave nothing."""
    audio = base64.b64encode(encode(sound(3, 16_000), 16_000, "flac")).decode()
    body = json.dumps({"model": "embedded", "messages": [user(f"data:;base64,{audio}")]}).encode()
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(request_without_reading(server, body))
        wait_for(lambda: server._engine.running + server._engine.waiting > 20)
    check_nothing_is_held(server, 2)
    check_others_are_served(server)

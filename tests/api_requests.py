"""Requests to the HTTP API, byte for byte, and the recordings that they are about."""

from __future__ import annotations

import base64
import json
import socket
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from qwen_audio.serve.launch import RunningServer
from recordings import sound, write_wav

KEY = "a-key"
CLIPS = [write_wav(sound(0.4 + 0.2 * seed, 16_000, seed=seed), 16_000) for seed in range(4)]
BASE64 = [base64.b64encode(data).decode() for data in CLIPS]
URLS = [f"data:audio/wav;base64,{text}" for text in BASE64]


def user(*parts: str) -> dict[str, Any]:
    """A user's turn of texts and recordings."""
    return {"role": "user", "content": [part_of(part) for part in parts]}


def part_of(text: str) -> dict[str, Any]:
    if text.startswith("data:"):
        return {"type": "audio_url", "audio_url": {"url": text}}
    if text in BASE64:
        return {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}}
    return {"type": "text", "text": text}


def post(server: RunningServer, path: str, body: Any, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body of the response to any JSON, or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(f"{server.url}{path}", data, given)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def request_without_reading(server: RunningServer, body: bytes) -> socket.socket:
    address = urlsplit(server.url)
    sock = socket.create_connection((str(address.hostname), int(address.port or 0)))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock

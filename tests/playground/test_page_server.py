"""The page's server: its hosts, malformed requests, memory, visitors at the same time."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from benchmarks.playground_client import run_client
from benchmarks.playground_load import QUESTIONS, client_recordings

from browser import PlaygroundProcess, choose_file, open_page, wait_until
from recordings import sound, write_wav

pytestmark = pytest.mark.slow


def wav(samples: Any, rate: int = 16_000) -> bytes:
    return write_wav(np.asarray(samples, np.float32).reshape(1, -1), rate)


def test_closing_the_page_frees_its_memory(
    chromium: Any, playground: PlaygroundProcess, tmp_path: Path
) -> None:
    minutes = tmp_path / "nine minutes.wav"
    minutes.write_bytes(wav(np.tile(sound(60.0, 16_000)[0], 9)))
    with open_page(chromium, playground.url) as page:
        choose_file(page, minutes)
        resident_bytes = playground.resident_bytes
    end = time.monotonic() + 30
    while playground.resident_bytes > resident_bytes - 0.8 * 4 * 540 * 16_000:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_concurrent_visitors_get_their_own_answers(playground: PlaygroundProcess) -> None:
    recordings = client_recordings(4, 1)
    # With equal answers, mixed up sessions would not be noticed.
    assert len({item.answers[QUESTIONS[0]] for item in recordings}) > 1

    async def run_all() -> list[Any]:
        return await asyncio.gather(*(run_client(playground.url, item, 4.0) for item in recordings))

    with ThreadPoolExecutor(1) as thread:  # Playwright's own event loop runs in this one
        reports = thread.submit(lambda: asyncio.run(run_all())).result()
    assert [report.problems + report.wrong_answers for report in reports] == [[]] * 4
    assert all(
        report.answers >= 2 and report.taps >= 4 and not report.rejected for report in reports
    )


def raw_request(
    url: str, target: str, *headers: str, method: str = "GET", body: bytes = b""
) -> int:
    """Status of a request with exactly these headers, a Host among them."""
    port = int(url.rstrip("/").rpartition(":")[2])
    lines = [f"{method} {target} HTTP/1.1", *headers, f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).replace("PORT", str(port))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode("latin-1") + body)
        return int(connection.recv(100).split()[1])


OWN_HOST = "Host: 127.0.0.1:PORT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([OWN_HOST], 200),
        (["Host: LOCALHOST.:PORT", "Origin: http://localhost:PORT"], 200),
        (["Host: evil.example"], 403),
        (["Host: 127.0.0.1.nip.io:PORT"], 403),
        (["Host: 192.168.1.5:PORT"], 403),
        (["Host: user@127.0.0.1:PORT"], 400),
        (["Host: "], 400),
        ([OWN_HOST, "Host: evil.example"], 400),
        ([OWN_HOST, "Origin: null"], 403),
        ([OWN_HOST, "Origin: http://127.0.0.1:1", "X-Forwarded-Host: 127.0.0.1:1"], 403),
        ([OWN_HOST, "Origin: https://127.0.0.1:PORT"], 403),
        ([OWN_HOST, "Sec-Fetch-Site: cross-site"], 403),
        ([OWN_HOST, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"], 403),
    ],
)
def test_the_page_is_for_its_own_hosts_and_pages(
    playground: PlaygroundProcess, headers: list[str], expected: int
) -> None:
    for target in ("/", "/config", "/theme.css"):
        assert raw_request(playground.url, target, *headers) == expected
    for method, target in (("OPTIONS", "/gradio_api/queue/join"), ("POST", "/clip?name=a.wav")):
        status = raw_request(playground.url, target, *headers, method=method, body=b"sound")
        assert status in ((200, 404) if expected == 200 else (expected,))


def test_no_request_is_an_internal_error(playground: PlaygroundProcess) -> None:
    config = httpx2.get(f"{playground.url}config").json()
    functions = [function["id"] for function in config["dependencies"]]
    deep = "[" * 900 + "]" * 900
    bodies = [
        "[" * 50_000,
        f'{{"data": [{deep}], "fn_index": 1, "session_hash": "a"}}',
        *(
            f'{{"data": {data}, "fn_index": {index}, "session_hash": {page}}}'
            for data, page in (
                ("[]", '"a"'),
                ("[null, null, null, null, null]", '"a"'),
                ('[{"n": 1e999}]', '"a"'),
                ('[{"n": "\\ud800"}]', '"a"'),
                ("[{}]", '"\\ud800"'),
                ("[{}]", f'"{"a" * 50_000}"'),
            )
            for index in (*functions, -1, len(functions) + 99, 10**30)
        ),
    ]
    join = f"{playground.url}gradio_api/queue/join"
    with httpx2.Client(headers={"content-type": "application/json"}) as client:
        statuses = [client.post(join, content=body).status_code for body in bodies]
    assert set(statuses) == {400}
    for target in (
        "/gradio_api/queue/data?session_hash=nobody",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/%00",
        "/assets/" + "a" * 5000,
        "/assets/%2e%2e/%2e%2e/routes.py",
        "/static/..%2f..%2froutes.py",
        "/gradio_api/startup-events",
        "/gradio_api/deep_link?session_hash=a",
        "http://127.0.0.1:PORT/",
    ):
        assert raw_request(playground.url, target, OWN_HOST) in (400, 404), target
    assert playground.process.new_errors() == ""


def test_stalled_uploads_take_no_more_memory_than_allowed(playground: PlaygroundProcess) -> None:
    port = int(playground.url.rstrip("/").rpartition(":")[2])
    head = f"POST /clip HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {60 * 2**20}\r\n\r\n"
    with ExitStack() as stack:
        uploads = []
        for _ in range(24):
            upload = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            upload.sendall(head.encode() + bytes(1000))
            uploads.append(upload)
        statuses = [upload.recv(12) for upload in uploads[4:]]
        assert statuses == [b"HTTP/1.1 503"] * 20
    url = f"{playground.url}clip?name=a.wav"
    wait_until(lambda: httpx2.post(url, content=bytes(10**6)).status_code == 200)

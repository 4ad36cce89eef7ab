"""The page's own requests pass its filter, others don't; uploads and unread results are bounded."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qwen_audio as qa
from asgi import EchoApp, Response, request, request_now
from qwen_audio.playground import pending, sessions
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.middleware import CONTENT_POLICY, PageFilter
from qwen_audio.playground.page_requests import check_cancel, checked_join
from qwen_audio.playground.sessions import SessionStore
from qwen_audio.serve.asgi import App, Receive, RequestError, Scope, Send, respond
from qwen_audio.serve.hosts import AllowedHosts
from qwen_audio.serve.middleware import RequestFilter

LIMITS = Limits(upload_bytes=1000, memory_bytes=8000, queue_size=4, body_idle_seconds=0.02)
FUNCTIONS = frozenset({1, 2})
JSON = (b"content-type", b"application/json")
JOIN, RESULTS = "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash="
FINE = {"data": [{"tap": "mel", "n": 1}], "fn_index": 1, "session_hash": "page", "trigger_id": 7}


class Page:
    """The filters in front of an application, and what they need."""

    def __init__(self, app: App | None = None, limits: Limits = LIMITS) -> None:
        self.echo = EchoApp()
        self.sessions = SessionStore(limits)
        self.filter = PageFilter(
            app or self.echo, sessions=self.sessions, limits=limits, functions=FUNCTIONS
        )
        self.app = RequestFilter(self.filter, hosts=AllowedHosts(), policy=CONTENT_POLICY)

    def request(self, *arguments: Any, **options: Any) -> Response:
        return request_now(self.app, *arguments, **options)

    def join(self, body: Any) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", JOIN, with_length(data, JSON), [data])


def with_length(data: bytes, *headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [*headers, (b"content-length", str(len(data)).encode())]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/?__theme=dark"),
        ("GET", "/assets/index-B1_x.js"),
        ("GET", "/static/fonts/a@2x.woff2"),
        ("GET", "/gradio_api/heartbeat/abc"),
    ],
)
def test_the_pages_own_requests_pass(method: str, path: str) -> None:
    response = Page().request(method, path)
    assert response.text == "passed"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    "target",
    [
        *(
            f"GET /gradio_api/{route}"
            for route in (
                *("file=/etc/passwd", "file=http://example.org/a.wav", "proxy=http://example.org"),
                *("info", "openapi.json", "app_id", "token", "user", "login_check", "queue/status"),
                *("upload_progress?upload_id=1", "deep_link?session_hash=a", "startup-events"),
                *("runs", "run-history/records", "call/x/1", "dev/reload", "queue/dataset"),
                *("stream/a/1/2/playlist.m3u8", "custom_component/a/client/b/c", "file/etc/passwd"),
                *("profiling/traces", "vibe-code", "heartbeat", "mcp/sse", ""),
            )
        ),
        *(
            f"POST /gradio_api/{route}"
            for route in (
                *(
                    "upload",
                    "run/predict",
                    "api/predict",
                    "component_server",
                    "call/open",
                    "stream/1",
                ),
                *("process_recording", "vibe-edit", "queue/data", "heartbeat/a", "queue/join/"),
            )
        ),
        *(
            f"GET {path}"
            for path in (
                *("/monitoring/summary", "/docs", "/openapi.json", "/manifest.json", "/pwa_icon"),
                *(
                    "/login",
                    "/logout",
                    "/svelte/a.js",
                    "/clip",
                    "/map",
                    "//",
                    "/config/",
                    "/examples/a",
                ),
                *("/assets/", "/assets/../routes.py", "/assets/%2e%2e/routes.py", "/assets/a/"),
                *("/static//etc/passwd", "/assets/..%5croutes.py", "/assets/%00", "/assets/%ff"),
                *("/assets/" + 300 * "a", "/assets/a\nb", "/assets/.git", "/static/~root", "/%2f"),
            )
        ),
        *("PUT /", "POST /", "DELETE /clip", "POST /login", "TRACE /", "OPTIONS /", "POST /config"),
    ],
)
def test_everything_else_is_not_found(target: str) -> None:
    page = Page()
    response = page.request(*target.split(" ", 1))
    assert (response.status, page.echo.scopes) == (404, [])


@pytest.mark.parametrize("page_id", ["", "a" * 65, "a/b", "a%2fb", "..", "%00", "%ff", "a.b"])
def test_ids_of_pages_are_short_and_plain(page_id: str) -> None:
    page = Page()
    assert page.request("GET", f"/gradio_api/heartbeat/{page_id}").status in (400, 404)
    assert page.request("GET", RESULTS + page_id).status == 400
    assert page.join({**FINE, "session_hash": page_id}).status == 400
    assert not page.echo.scopes


def test_a_checked_request_is_forwarded_as_it_was_understood() -> None:
    page = Page()
    assert page.join({**FINE, "event_data": {"ignored": 1}}).text == "passed"
    assert json.loads(page.echo.bodies[0]) == FINE
    assert page.join({**FINE, "fn_index": 2}).text == "passed"


FILES: list[dict[str, Any]] = [
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"path": "http://example.org/a.wav"},
    {"url": "http://example.org/a.wav"},
    {"deep": [[{"meta": 1}]]},
]


def changed(name: str, *values: Any) -> list[Any]:
    return [{**FINE, name: value} for value in values]


MALFORMED: list[Any] = [
    *changed("data", *([file] for file in FILES)),
    *changed("data", [], [{}, {}], [None], [[]], ["{}"], {}, None, "x", 1),
    *changed("fn_index", 0, 3, -1, 99999, 2**60, None, True, 1.0, "1", [1], {}),
    *changed("session_hash", None, 1, True, [], {}, "a b", "\u00e9", "a\n"),
    *changed("trigger_id", "1", 1.5, True, [], {}),
    *changed("batched", True, False, None),
    *changed("simple_format", True),
    *changed("event_id", "x"),
    *changed("oauth_token", "x"),
    *changed("request", {}),
    *changed("", 1),
    *({key: FINE[key] for key in FINE if key != left_out} for left_out in list(FINE)[:3]),
    *([], [FINE], None, True, 3, "text", {}),
    *(b"{", b"", b"\xff", b"[" * 50_000, b"[" * 900 + b"]" * 900),
    json.dumps(FINE).replace('"mel"', '"\\ud800"').encode(),
    json.dumps(FINE).replace('"mel"', "NaN").encode(),
    json.dumps(FINE).replace('"mel"', "1e999").encode(),
    json.dumps(FINE).replace('"fn_index": 1', '"fn_index": 1, "fn_index": 1').encode(),
    json.dumps({**FINE, "data": [FILES[0]]}).replace("a", "\\u0061").encode(),
]


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_requests_are_bad_requests(body: Any) -> None:
    page = Page()
    assert (page.join(body).status, page.echo.scopes) == (400, [])
    assert "page" not in page.filter.pending


def test_large_compressed_and_plain_bodies_are_refused() -> None:
    page = Page()
    large = b'"' + b"x" * 70_000 + b'"'
    assert page.join(large).status == 413
    assert page.request("POST", JOIN, [(b"content-length", b"2")], [b"{}"]).status == 415
    compressed = with_length(b"{}", JSON, (b"content-encoding", b"gzip"))
    assert page.request("POST", JOIN, compressed, [b"{}"]).status == 415
    assert page.request("POST", JOIN, with_length(b"{}", JSON), [b"{"], after="stall").status == 408


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from([*FINE, "event_data", "event_id", "x"]), VALUES), VALUES)
def test_any_json_is_a_request_or_a_bad_request(changes: dict[str, Any], other: Any) -> None:
    for body in (changes, {**FINE, **changes}, other):
        for check in (lambda body: checked_join(body, FUNCTIONS), check_cancel):
            try:
                check(body)
            except RequestError as error:
                status = error.status
            else:
                status = 400
            assert status == 400


CANCEL = {"event_id": 32 * "a", "fn_index": 1, "session_hash": "page"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (CANCEL, 200),
        ({"event_id": 32 * "a"}, 200),
        ({**CANCEL, "event_id": None}, 400),
        ({**CANCEL, "event_id": "../a"}, 400),
        ({**CANCEL, "fn_index": "1"}, 400),
        ({**CANCEL, "session_hash": []}, 400),
        ({**CANCEL, "more": 1}, 400),
        ([], 400),
    ],
)
@pytest.mark.parametrize("route", ["cancel", "reset"])
def test_cancelling(route: str, body: Any, status: int) -> None:
    data = json.dumps(body).encode()
    response = Page().request("POST", f"/gradio_api/{route}", with_length(data, JSON), [data])
    assert response.status == status


def upload(
    page: Page, data: bytes, name: str = "a.wav", length: int | None = None, **options: Any
) -> Response:
    headers = [(b"content-length", str(len(data) if length is None else length).encode())]
    return page.request("POST", f"/clip?name={name}", headers, [data], **options)


def test_an_upload_can_be_used_once() -> None:
    page = Page()
    ticket = json.loads(upload(page, b"sound", "..%2Fa%5Cb%00%ff.wav").text)["ticket"]
    assert page.sessions.uploads.reserved == 5
    with page.sessions.opened_upload(ticket) as opened:
        assert (opened.name, opened.data) == ("a\\b\ufffd.wav", b"sound")
        assert page.sessions.uploads.reserved == 5  # while it is decoded
    assert page.sessions.uploads.reserved == 0
    for guess in (ticket, "", secrets.token_urlsafe(24)):
        with pytest.raises(qa.AudioError, match="choose the file again"):
            page.sessions.opened_upload(guess).__enter__()


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("é" * 120 + ".wav", "é" * 120 + ".wav"),
        ("é" * 200 + ".wav", "é" * 125 + ".wav"),  # 254 bytes: no character is cut in two
        ("-it's \n[a] .wav ", "-it's \n[a] .wav "),
        ("/etc/..", "recording"),
        ("", "recording"),
    ],
)
def test_names_of_uploads_are_those_of_files(sent: str, name: str) -> None:
    page = Page()
    ticket = json.loads(upload(page, b"sound", quote(sent)).text)["ticket"]
    with page.sessions.opened_upload(ticket) as opened:
        assert opened.name == name


def test_too_large_uploads_are_rejected() -> None:
    page = Page()
    chunks = [b"x" * 100 for _ in range(20)]
    chunked = page.request("POST", "/clip?name=a.wav", [(b"transfer-encoding", b"chunked")], chunks)
    for response in (upload(page, b"x" * 1001), upload(page, b"", length=10**12), chunked):
        assert response.status == 413
        assert json.loads(response.text)["problem"].startswith("a.wav is larger than")
    assert page.sessions.uploads.reserved == 0


@pytest.mark.parametrize(("after", "status"), [("disconnect", 0), ("stall", 408)])
def test_memory_of_incomplete_uploads_is_given_back(after: str, status: int) -> None:
    page = Page()
    assert upload(page, b"x", length=900, after=after).status == status
    assert page.sessions.uploads.reserved == 0


def test_memory_of_uploads_is_reserved_before_they_are_read() -> None:
    page = Page()  # for two of the largest uploads

    async def stalled_uploads() -> list[Response]:
        headers = [(b"content-length", b"1000")]
        return await asyncio.gather(
            *(request(page.app, "POST", "/clip", headers, [b"x"], after="stall") for _ in range(24))
        )

    responses = asyncio.run(stalled_uploads())
    assert sorted(response.status for response in responses) == [408] * 2 + [503] * 22
    assert all("try again" in json.loads(response.text)["problem"] for response in responses)
    assert upload(page, b"x").status == 200


def test_uploads_that_wait_make_room_the_oldest_first() -> None:
    page = Page()
    tickets = [json.loads(upload(page, bytes(900)).text)["ticket"] for _ in range(3)]
    assert page.sessions.uploads.reserved == 1800
    with pytest.raises(qa.AudioError):
        page.sessions.opened_upload(tickets[0]).__enter__()
    with page.sessions.opened_upload(tickets[1]), page.sessions.opened_upload(tickets[2]):
        assert upload(page, bytes(900)).status == 503  # what is being decoded makes none


def recording(samples: int) -> Clip:
    return Clip(qa.Waveform(np.full(samples, 0.1, np.float32), "a.wav"))


def test_the_audio_of_an_open_recording() -> None:
    page = Page(limits=Limits())
    page.sessions.get("page").clip = clip = recording(1600)
    response = page.request("GET", f"/recording/{clip.audio_token}")
    assert (response.status, response.headers["content-type"]) == (200, "audio/wav")
    assert response.headers["content-length"] == str(44 + 2 * 1600)
    for token in ("x" * 32, clip.audio_token[:-1], clip.audio_token + "/..", ""):
        assert page.request("GET", f"/recording/{token}").status == 404
    assert page.request("POST", f"/recording/{clip.audio_token}").status == 404
    assert not page.echo.scopes


def test_uploads_count_towards_the_memory_of_all_sessions() -> None:
    page = Page()
    clip = recording(1700)
    page.sessions.get("first").clip = clip
    page.sessions.get("second")
    assert page.sessions.get("first").clip is clip
    page.sessions.get("second")
    assert upload(page, bytes(1000)).status == 200
    upload(page, bytes(1000))
    assert page.sessions.get("first").clip is None


def test_a_flood_of_pages_does_not_close_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MAX_SESSIONS", 10)
    store = SessionStore(Limits())
    store.get("visitor").clip = clip = recording(1600)
    for number in range(50):
        store.get(f"flood{number}")
    assert len(store) <= 11
    assert store.get("visitor").clip is clip


class Queue:
    """Stands for Gradio: accepts requests, and streams what it is told to."""

    def __init__(self, *messages: bytes) -> None:
        self.messages, self.status = messages, 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await respond(send, self.status, "{}")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in self.messages:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


COMPLETED = b'data: {"msg":"process_completed","event_id":"e","output":{}}\n\n'
CLOSED = b'data: {"msg":"close_stream","event_id":null}\n\n'


def test_results_are_sent_to_pages_that_wait_for_them_only() -> None:
    page = Page(Queue(COMPLETED, CLOSED))
    assert page.request("GET", RESULTS + "page").status == 404
    page.join(FINE)
    assert page.request("GET", RESULTS + "other").status == 404
    assert page.request("GET", RESULTS + "page&__theme=dark").text.count("data:") == 2
    assert page.request("GET", RESULTS + "page").status == 404


def test_requests_that_gradio_refuses_are_not_pending() -> None:
    queue = Queue()
    queue.status = 503
    page = Page(queue)
    assert page.join(FINE).status == 503
    assert "page" not in page.filter.pending


def test_unread_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(Queue(COMPLETED, CLOSED))
    assert {page.join(FINE).status for _ in range(32)} == {200}
    assert page.join(FINE).status == 503  # of one page
    statuses = [page.join({**FINE, "session_hash": f"p{n}"}).status for n in range(50)]
    assert statuses == [200] * 36 + [503] * 14  # of all pages: the queue, and what runs
    assert page.request("GET", RESULTS + "p0").status == 200
    assert page.join(FINE).status == 503
    monkeypatch.setattr(pending, "_ABANDONED_SECONDS", 0.0)

    async def join_later() -> int:
        data = json.dumps({**FINE, "session_hash": "new"}).encode()
        await request(page.app, "POST", JOIN, with_length(data, JSON), [data])
        await asyncio.sleep(0)
        while page.filter._discarding:
            await asyncio.sleep(0)
        response = await request(page.app, "POST", JOIN, with_length(data, JSON), [data])
        return response.status

    assert asyncio.run(join_later()) == 200  # pages that are gone make room


def test_a_broken_stream_leaves_nothing_pending() -> None:
    page = Page(Queue(b"data: {}"))
    page.join(FINE)
    page.request("GET", RESULTS + "page")
    assert "page" not in page.filter.pending


def test_streams_leave_half_of_the_connections_to_other_requests() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    page = Page(endless, Limits(connections=4))

    async def open_streams() -> list[int]:
        streams: Iterable[asyncio.Task[Response]] = [
            asyncio.create_task(request(page.app, "GET", f"/gradio_api/heartbeat/{n}"))
            for n in range(3)
        ]
        done, waiting = await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return [task.result().status for task in done]

    assert asyncio.run(open_streams()) == [503]

"""Requests that the middleware refuses, and what the application sees of the others."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi import HOST, EchoApp, Response, request_now
from qwen_audio.serve.asgi import Message, Receive, RequestError, Scope, Send
from qwen_audio.serve.hosts import AllowedHosts, parse_authority
from qwen_audio.serve.middleware import RequestFilter

METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE")
NAVIGATION = ((b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"))


def send(
    method: str = "GET", target: str = "/config", *headers: tuple[bytes, bytes], **options: Any
) -> tuple[Response, EchoApp]:
    app = EchoApp()
    hosts = AllowedHosts("127.0.0.1", ["proxied.example"])
    hosts.allow("shared.example")
    request_filter = RequestFilter(app, hosts=hosts, policy="default-src 'self'")
    return request_now(request_filter, method, target, headers, **options), app


def refused(status: int, *arguments: Any, **options: Any) -> str:
    response, app = send(*arguments, **options)
    assert (response.status, app.scopes) == (status, [])
    assert response.text.count("\n") == 1
    assert response.headers["content-security-policy"] == "default-src 'self'"
    return response.text


@pytest.mark.parametrize("method", METHODS)
def test_other_hosts_and_origins_are_refused_by_every_method(method: str) -> None:
    assert send(method)[0].text == "passed"
    host = (b"host", b"evil.example")
    assert "--allowed-host" in refused(403, method, "/", host, host=False)
    for origin in (b"http://evil.example", b"null", b"", b"http://localhost:1"):
        assert "other sites" in refused(403, method, "/", (b"origin", origin))
    assert send(method, "/", (b"origin", b"http://localhost:7860"))[0].text == "passed"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (HOST, HOST),
        (HOST, (b"host", b"evil.example")),
        ((b"host", b""),),
        ((b"host", b"user@localhost"),),
        ((b"host", b"m\xfcller.example"),),
        ((b"host", b"localhost, evil.example"),),
    ],
)
def test_without_one_wellformed_host_a_request_is_refused(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    assert "Host header" in refused(400, "GET", "/", *headers, host=False)


@pytest.mark.parametrize("target", ["http://evil.example/", "http://localhost:7860/", "*", ""])
def test_targets_are_paths(target: str) -> None:
    assert "must be a path" in refused(400, "GET", target)


def test_several_origins_are_refused() -> None:
    origin = (b"origin", b"http://localhost:7860")
    refused(403, "POST", "/", origin, origin)


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"", b"Same-Origin", b"other"])
def test_requests_that_a_browser_sends_for_other_sites_are_refused(site: bytes) -> None:
    header = (b"sec-fetch-site", site)
    for method in METHODS:
        refused(403, method, "/", header)
    refused(403, "GET", "/", header, (b"sec-fetch-mode", b"navigate"))
    refused(403, "GET", "/", header, NAVIGATION[0], (b"sec-fetch-dest", b"iframe"))
    refused(403, "GET", "/config", header, *NAVIGATION)
    refused(403, "POST", "/", header, *NAVIGATION)
    assert send("GET", "/", header, *NAVIGATION)[0].text == "passed"  # a link to the page


@pytest.mark.parametrize("site", [b"same-origin", b"none"])
def test_own_requests_pass(site: bytes) -> None:
    assert send("POST", "/any", (b"sec-fetch-site", site))[0].text == "passed"


FORWARDED = (
    (b"x-forwarded-host", b"evil.example"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-for", b"1.2.3.4"),
    (b"x-gradio-server", b"http://evil.example"),
    (b"x-original-url", b"/gradio_api/file=/etc/passwd"),
    (b"forwarded", b"host=evil.example"),
)


@pytest.mark.parametrize(
    ("host", "scheme"),
    [(b"localhost", "http"), (b"shared.example", "https"), (b"proxied.example", "https")],
)
def test_the_application_sees_no_forwarded_headers(host: bytes, scheme: str) -> None:
    kept = ((b"host", host), (b"accept", b"*/*"))
    _, app = send("GET", "/", *kept, *FORWARDED, host=False)
    assert app.scopes[0]["headers"] == list(kept)
    assert app.scopes[0]["scheme"] == scheme
    evil = (b"origin", b"http://evil.example")
    refused(403, "POST", "/", (b"host", host), evil, *FORWARDED, host=False)


def test_the_scheme_of_a_proxy_is_one_that_exists() -> None:
    for value in (b"gopher", b"https, http", b""):
        headers = ((b"host", b"proxied.example"), (b"x-forwarded-proto", value))
        assert send("GET", "/", *headers, host=False)[1].scopes[0]["scheme"] == "http"


NAMES = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"x-forwarded-proto", b"cookie")
VALUES = st.sampled_from(
    [
        b"localhost:7860",
        b"http://localhost:7860",
        b"null",
        b"same-origin",
        b"evil.example",
        b"https",
    ]
)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), VALUES | st.binary(max_size=9)), max_size=5),
    st.sampled_from(METHODS),
    st.text(max_size=9),
)
def test_whatever_is_sent_is_passed_on_or_refused(
    headers: list[tuple[bytes, bytes]], method: str, target: str
) -> None:
    response, app = send(method, quote(target), *headers, host=False)
    assert response.status in ((200,) if app.scopes else (400, 403))
    if app.scopes:
        seen = dict(app.scopes[0]["headers"])
        assert parse_authority(seen[b"host"].decode()) == ("localhost", 7860)
        assert seen.get(b"origin", b"http://localhost:7860") == b"http://localhost:7860"


def test_responses_cannot_be_embedded_by_other_sites() -> None:
    headers = send()[0].headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


def test_websockets_are_closed() -> None:
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    async def never() -> Message:
        raise AssertionError

    app = EchoApp()
    request_filter = RequestFilter(app, hosts=AllowedHosts(), policy="")
    asyncio.run(request_filter({"type": "websocket", "headers": [HOST]}, never, keep))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert not app.scopes


def test_errors_of_the_application_are_its_responses() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RequestError(503, "Too\nmany.")

    response = request_now(RequestFilter(app, hosts=AllowedHosts(), policy=""), "GET", "/")
    assert (response.status, response.text) == (503, "Too many.\n")

"""Recordings fetched by address: from which hosts, to which addresses, and within which limits."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from qwen_audio.serve import media
from qwen_audio.serve.api_errors import ParameterError
from qwen_audio.serve.asgi import RequestError
from qwen_audio.serve.engine import BusyError
from qwen_audio.serve.limits import ApiLimits
from qwen_audio.serve.media import MediaFetcher
from qwen_audio.serve.media_hosts import AllowedMediaHosts, is_public_address

LIMITS = ApiLimits(request_bytes=1000, upload_bytes=1, memory_bytes=6000, fetch_seconds=5)
NAME = "media.example.org"


class Media(ThreadingHTTPServer):
    """A server of files; keeps the requests that reach it, and the size of what it sends."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.authority = f"{address}:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are expected."""


class Handler(BaseHTTPRequestHandler):
    """`/bytes/N`, `/redirect/N` that many times, `/to/URL`, `/status/N`; `/endless`, `/slow`;
    `/gzip`; `/large`, which only states so."""

    server: Media

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        action, _, value = self.path[1:].partition("/")
        getattr(self, f"send_{action}")(value)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def start(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        self.send_header("Set-Cookie", "a=b")
        for name, header in headers.items():
            self.send_header(name.replace("_", "-"), str(header))
        self.end_headers()

    def send_bytes(self, value: str) -> None:
        self.start(200, Content_Length=value)
        self.wfile.write(b"x" * int(value))

    def send_redirect(self, value: str) -> None:
        left = int(value)
        self.start(302, Location=f"/redirect/{left - 1}" if left else "/bytes/7", Content_Length=0)

    def send_to(self, value: str) -> None:
        self.start(301, Location=value, Content_Length=0)

    def send_status(self, value: str) -> None:
        self.start(int(value), Content_Length=0)

    def send_endless(self, _: str) -> None:
        self.start(200)
        while True:
            self.server.sent += self.wfile.write(bytes(100))

    def send_slow(self, _: str) -> None:
        self.start(200)
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def send_gzip(self, _: str) -> None:
        self.start(200, Content_Encoding="gzip")

    def send_large(self, _: str) -> None:
        self.start(200, Content_Length=1001)


@pytest.fixture
def files() -> Iterator[Media]:
    with Media() as server:
        yield server
        server.shutdown()


def fetch(hosts: list[str], *urls: str, limits: ApiLimits = LIMITS) -> list[bytes]:
    """What is at these addresses."""
    fetcher = MediaFetcher(hosts, limits)

    async def run() -> list[bytes]:
        with fetcher.download(dict(zip("abcdef", urls, strict=False))) as download:
            await fetcher.run(download)
            assert fetcher.memory.reserved == sum(map(len, download.files.values()))
            return list(download.files.values())

    try:
        return asyncio.run(run())
    finally:
        assert fetcher.memory.reserved == 0
        fetcher.close()


def refused(hosts: list[str], *urls: str, limits: ApiLimits = LIMITS) -> ParameterError:
    with pytest.raises(ParameterError) as error:
        fetch(hosts, *urls, limits=limits)
    assert "\n" not in str(error.value)
    return error.value


def test_files_are_fetched(files: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the environment says of proxies, and without cookies; redirects are followed."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    base = f"http://{files.authority}"
    urls = [f"{base}/bytes/5", f"HTTP://{files.authority}/redirect/2", f"{base}/to/{base}/bytes/3"]
    assert fetch([files.authority], *urls) == [b"x" * 5, b"x" * 7, b"x" * 3]
    for _, headers in files.requests:
        names = {name.lower() for name in headers}
        assert names == {"host", "accept", "accept-encoding", "connection", "user-agent"}
        assert headers["host"] == files.authority


def test_only_hosts_that_are_allowed(files: Media) -> None:
    port = files.server_port
    for hosts in ([], [NAME], ["127.0.0.1"], ["127.0.0.1:80"], [f"localhost:{port}"]):
        error = refused(hosts, f"http://{files.authority}/bytes/5")
        assert (error.status, error.param, error.code) == (400, "a", "invalid_url")
        assert f"start the server with --allow-media-host {files.authority}" in str(error)
    hosts = [files.authority]
    for url in (
        f"http://localhost:{port}/",
        f"http://sub.{files.authority}/",
        f"http://2130706433:{port}/",
        f"http://127.1:{port}/",
        f"http://[::1]:{port}/",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/",
        f"http://{NAME}@{files.authority}/",
        f"http://{files.authority}@{NAME}/",
        f"http://{files.authority}\\@{NAME}/",
        "http://",
        "http://[",
        f"http://{'a' * 70_000}/",
    ):
        assert refused(hosts, f"http://{files.authority}/bytes/5", url).code == "invalid_url"
    assert files.requests == []


def test_redirects_are_checked(files: Media) -> None:
    base, hosts = f"http://{files.authority}", [files.authority, "localhost"]
    assert "more than 3" in str(refused(hosts, f"{base}/redirect/3"))
    for url in (
        "http://169.254.169.254/",
        "http://127.0.0.1:1/",
        "//example.org/a",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        f"http://user@{files.authority}/",
        "http://[",
    ):
        assert refused(hosts, f"{base}/to/{url}").code == "invalid_url"
    assert "no public IP address" in str(refused(hosts, f"{base}/to/http://localhost/"))


def test_names_have_public_addresses(files: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused([f"localhost:{files.server_port}"], f"http://localhost:{files.server_port}/")
    assert "localhost has no public IP address" in str(error)
    for address in ("10.0.0.1", "169.254.169.254", "fe80::1%eth0", "::1", "::ffff:8.8.8.8"):
        monkeypatch.setattr(socket, "getaddrinfo", resolver([address]))
        assert "no public IP address" in str(refused([NAME], f"http://{NAME}/"))


def resolver(*answers: list[str]) -> Callable[..., Any]:
    """A `getaddrinfo` with these addresses for NAME, at every call others."""
    left = list(answers)
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host in (NAME, NAME.encode()):
            found = left.pop(0)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]
        return original(host, port, *arguments, **options)

    return getaddrinfo


def test_the_address_that_was_checked_is_connected_to(
    files: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name that has another address at its next look-up (DNS rebinding)."""
    try:
        other = Media("127.0.0.2", files.server_port)
    except OSError:
        pytest.skip("this machine has one loopback address")
    with other:
        addresses = ["127.0.0.2", "127.0.0.1"]
        monkeypatch.setattr(socket, "getaddrinfo", resolver(addresses, ["127.0.0.2"]))
        monkeypatch.setattr(media, "is_public_address", lambda text: text == "127.0.0.1")
        authority = f"{NAME}:{files.server_port}"
        assert fetch([authority], f"http://{authority}/bytes/5") == [b"x" * 5]
        other.shutdown()
    assert other.requests == []
    assert [headers["host"] for _, headers in files.requests] == [authority]


def test_certificates_are_those_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-addext",
        f"subjectAltName=DNS:{NAME}",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    monkeypatch.setattr(media, "is_public_address", lambda _: True)
    contexts = ssl.create_default_context(cafile=certificate), ssl.create_default_context()
    with Media() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        for name, trusted in ((NAME, True), (NAME, False), ("localhost", True)):
            monkeypatch.setattr(socket, "getaddrinfo", resolver(["127.0.0.1"]))
            monkeypatch.setattr(MediaFetcher, "_tls", contexts[not trusted])
            authority = f"{name}:{server.server_port}"
            if trusted and name == NAME:
                assert fetch([authority], f"https://{authority}/bytes/5") == [b"x" * 5]
            else:
                assert "CERTIFICATE" in str(refused([authority], f"https://{authority}/bytes/5"))
        server.shutdown()


def test_what_is_no_recording(files: Media) -> None:
    base, hosts = f"http://{files.authority}", [files.authority]
    for path in ("status/404", "status/500", "status/206", "status/304", "gzip", "nothing"):
        error = refused(hosts, f"{base}/{path}")
        assert (error.status, error.param, error.code) == (400, "a", "media_unavailable")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = refused([f"127.0.0.1:{port}"], f"http://127.0.0.1:{port}/")
    assert error.code == "media_unavailable"


def test_limits(files: Media) -> None:
    """Of size, whatever a server says; of time; and of memory for all requests."""
    base, hosts = f"http://{files.authority}", [files.authority]
    assert fetch(hosts, f"{base}/bytes/1000") == [b"x" * 1000]
    for urls in (["bytes/1001"], ["endless"], ["large"], ["bytes/600", "bytes/500"]):
        error = refused(hosts, *(f"{base}/{url}" for url in urls))
        assert (error.status, error.code) == (413, "audio_too_large")
    assert files.sent < 10**7
    slow = ApiLimits(fetch_seconds=0.2)
    start = time.monotonic()
    assert "takes longer than 0.2 s" in str(refused(hosts, f"{base}/slow", limits=slow))
    assert time.monotonic() - start < 3
    small = ApiLimits(memory_bytes=4 * 700, upload_bytes=1)
    with pytest.raises(RequestError) as full:
        fetch(hosts, f"{base}/bytes/600", f"{base}/bytes/200", limits=small)
    assert full.value.status == 503


def test_requests_that_fetch_are_bounded(files: Media) -> None:
    fetcher = MediaFetcher([files.authority], ApiLimits(queue_size=1, slots=1))
    texts = {"a": f"http://{files.authority}/bytes/5"}
    with fetcher.download(texts), fetcher.download(texts):
        with pytest.raises(BusyError), fetcher.download(texts):
            pass
        with fetcher.download({"a": "AAAA"}) as nothing:
            assert not nothing.urls
    with fetcher.download(texts) as download:
        assert download.urls
    fetcher.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("8.8.8.8", "2606:4700::1", "192.88.99.1")),
        *((text, False) for text in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1")),
        *((text, False) for text in ("127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1")),
        *((text, False) for text in ("240.0.0.1", "255.255.255.255", "233.252.0.1", "198.18.0.1")),
        *((text, False) for text in ("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1")),
        *((text, False) for text in ("ff02::1", "ff0e::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8")),
        *((text, False) for text in ("64:ff9b::a00:1", "2002:a00:1::1", "2001:0:1::1")),
    ],
)
def test_public_addresses(text: str, expected: bool) -> None:
    assert is_public_address(text) == expected


def test_hosts() -> None:
    hosts = AllowedMediaHosts(
        ["Example.org.", "a.example:8080", "[2606:4700::1]:99", "::1", "bücher.de"]
    )
    for url in (
        ("http", "example.org", None),
        ("https", "EXAMPLE.ORG.", None),
        ("https", "example.org", 443),
        ("http", "a.example", 8080),
        ("https", "2606:4700:0::1", 99),
        ("http", "::1", None),
        ("http", "xn--bcher-kva.de", None),
    ):
        assert hosts.find(*url) is not None
    for url in (
        ("https", "example.org", 80),
        ("http", "example.org", 443),
        ("ftp", "example.org", None),
        ("http", "www.example.org", None),
        ("http", "a.example", None),
        ("https", "2606:4700::1", None),
        ("http", "", None),
        ("http", "::1%lo", None),
    ):
        assert hosts.find(*url) is None
    assert AllowedMediaHosts().find("http", "example.org", None) is None
    for name in (
        "",
        "http://example.org",
        "a b",
        "*.example.org",
        "example.org:0",
        "example.org/x",
    ):
        with pytest.raises(qa.OptionError, match="is not the name of a host"):
            AllowedMediaHosts([name])

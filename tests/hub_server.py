"""A fake hub on the loopback interface: the part of the protocol that downloading files needs.

HEAD and GET of /{owner}/{name}/resolve/{revision}/{file}, with Range, ETag, X-Repo-Commit and the
error codes from which huggingface_hub derives its exceptions; and, if it redirects clients to
storage as the real one does, of /stored/{owner}/{name}/{file}.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _cache_assets

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADER = 128 << 10
"""Bytes of the first range that this package requests, to read a header."""


class Hub:
    """Repositories and faults of the server, and the requests it received.

    Attributes:
        repos: "owner/name" → folder.
        requests: (method, repo, file), in order.
        ranges: (file, "bytes=0-99" or "") of each GET: the requested range.
        tokens: (host, file, Authorization) of each request.
        sent: file → bytes of its content that were sent.
        status: file → (status, error code) with which every request for it is answered.
        hiccups: file → number of requests for it that are answered with 503.
        truncate: file → number of bytes after which the connection is closed.
        breaks: as `truncate`, but only once: the entry is then removed.
        etags: file → its ETag, instead of its digest.
        sends_ranges: False: the server ignores Range and sends whole files.
        tampered: headers of 206 responses that replace the right ones ("" removes one).
        surplus: bytes by which a 206 response is longer (or, if negative, shorter) than it says.
        storage: base URL of the storage to redirect to; "": this server; None: no redirect.
        pause: seconds between chunks of 64 KiB.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.ranges: list[tuple[str, str]] = []
        self.tokens: list[tuple[str, str, str]] = []
        self.sent: Counter[str] = Counter()
        self.revisions: dict[str, str] = {"main": COMMIT, COMMIT: COMMIT}
        self.status: dict[str, tuple[int, str]] = {}
        self.hiccups: dict[str, int] = {}
        self.truncate: dict[str, int] = {}
        self.breaks: dict[str, int] = {}
        self.etags: dict[str, str] = {}
        self.sends_ranges = True
        self.tampered: dict[str, str] = {}
        self.surplus = 0
        self.storage: str | None = None
        self.pause = 0.0
        self.url = ""
        self.lock = Lock()

    def fetched(self) -> list[str]:
        """Files whose content was sent, in order."""
        return [file for method, _, file in self.requests if method == "GET"]

    def forget(self) -> None:
        """Clear the requests recorded so far."""
        del self.requests[:], self.ranges[:], self.tokens[:]
        self.sent.clear()


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(ConnectionError):  # clients disconnect, or are killed
                super().handle()

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def log_message(self, *_: Any) -> None:
            """Log nothing: tests read `hub.requests`."""

        def _answer(self, *, send: bool) -> None:
            path = self.path.split("?")[0][1:]
            stored = path.startswith("stored/")
            if stored:
                owner, name, *rest = path.removeprefix("stored/").split("/")
                resolve, revision = "resolve", "main"
            else:
                owner, name, resolve, revision, *rest = *path.split("/"), "", ""
            repo, file = f"{owner}/{name}", "/".join(rest).strip("/")
            with hub.lock:
                token = self.headers.get("Authorization", "")
                hub.tokens.append((self.headers["Host"], file, token))
                if file and not stored:  # other requests of the client don't matter
                    hub.requests.append((self.command, repo, file))
                hiccup = hub.hiccups.get(file, 0) > 0
                hub.hiccups[file] = hub.hiccups.get(file, 0) - 1
            if resolve != "resolve" or repo not in hub.repos:
                return self._refuse(401, "RepoNotFound", "Repository not match")
            if file in hub.status or hiccup:
                return self._refuse(*hub.status.get(file, (503, "")), "Refused by this test")
            if revision not in hub.revisions:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            local = hub.repos[repo] / file
            if not local.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not match")
            data = local.read_bytes()
            etag = f'"{hub.etags.get(file) or hashlib.sha256(data).hexdigest()}"'
            if hub.storage is not None and not stored and file.endswith(".safetensors"):
                self.send_response(302)
                self.send_header("X-Linked-ETag", etag)
                self.send_header("X-Linked-Size", str(len(data)))
                self._finish(f"{hub.storage}/stored/{repo}/{file}", revision)
                return None
            self._send(file, data, '"of storage"' if stored else etag, revision, send=send)
            return None

        def _send(self, file: str, data: bytes, etag: str, revision: str, *, send: bool) -> None:
            range_header = self.headers.get("Range", "")
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", range_header)
            if not hub.sends_ranges or "gzip" in self.headers.get("Accept-Encoding", ""):
                match = None  # a compressed response has no ranges
            if send:
                hub.ranges.append((file, range_header))
            headers = {"X-Repo-Commit": hub.revisions[revision], "ETag": etag}
            if match and int(match[1]) >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if match:
                first, last = int(match[1]), min(int(match[2]), len(data) - 1)
                headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"} | hub.tampered
                data = data[first : max(first, last + 1 + min(hub.surplus, 0))]
                data += bytes(max(0, hub.surplus))
            self.send_response(206 if match else 200)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not send:
                return
            limit = hub.breaks.pop(file, hub.truncate.get(file, len(data)))
            for start in range(0, min(limit, len(data)), 1 << 16):
                part = data[start : min(start + (1 << 16), limit)]
                with hub.lock:  # before the client can receive it
                    hub.sent[file] += len(part)
                self.wfile.write(part)
                time.sleep(hub.pause)
            if limit < len(data):
                self.close_connection = True

        def _finish(self, location: str, revision: str) -> None:
            self.send_header("Location", location)
            self.send_header("X-Repo-Commit", hub.revisions[revision])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def use_hub(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub's client to this hub, without a token, with its cache in `home`."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    close_session()

"""A hub on the loopback interface: as much of the real one as downloading files and parts takes.

HEAD and GET of /{owner}/{name}/resolve/{revision}/{file}, with Range, ETag, X-Repo-Commit and the
error codes that huggingface_hub tells its errors by; and, where it sends clients on to storage as
the real one does, of /stored/{owner}/{name}/{file}.
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
"""Bytes that this package asks for at first, to know a header."""


class Hub:
    """What the server holds, what it was asked for, and how it misbehaves.

    Attributes:
        repos: "owner/name" → folder.
        requests: (method, repo, file), in order.
        ranges: of each GET, the range that was asked for: (file, "bytes=0-99" or "").
        tokens: (host, file, Authorization) of each request.
        sent: bytes of each file's content that crossed.
        status: answer every request for a file named here with this status and error code.
        hiccups: answer so many requests for a file named here with 503.
        truncate: send only so many bytes of a body of a file named here, and hang up.
        breaks: as `truncate`, but once: the file is removed from here.
        etags: the ETag of a file named here, instead of its digest.
        sends_ranges: false for a server that answers with whole files.
        tampered: headers that an answer of 206 carries instead of the right ones ("" for none).
        surplus: bytes by which such an answer is longer than it says (or shorter).
        storage: where clients are sent on to: "" for nowhere, or the beginning of an address.
        pause: seconds between 64 KiB of a body.
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
        """What was asked for so far."""
        del self.requests[:], self.ranges[:], self.tokens[:]
        self.sent.clear()


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that serves until the block ends."""
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
            with suppress(ConnectionError):  # clients hang up, or are killed
                super().handle()

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests look at `hub.requests`."""

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
                if file and not stored:  # the client also asks for other things, of no account
                    hub.requests.append((self.command, repo, file))
                hiccup = hub.hiccups.get(file, 0) > 0
                hub.hiccups[file] = hub.hiccups.get(file, 0) - 1
            if resolve != "resolve" or repo not in hub.repos:
                return self._refuse(401, "RepoNotFound", "Repository not found")
            if file in hub.status or hiccup:
                return self._refuse(*hub.status.get(file, (503, "")), "Refused by this test")
            if revision not in hub.revisions:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            place = hub.repos[repo] / file
            if not place.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not found")
            data = place.read_bytes()
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
            asked = self.headers.get("Range", "")
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            if not hub.sends_ranges or "gzip" in self.headers.get("Accept-Encoding", ""):
                found = None  # of what is compressed on the way there are no parts
            if send:
                hub.ranges.append((file, asked))
            headers = {"X-Repo-Commit": hub.revisions[revision], "ETag": etag}
            if found and int(found[1]) >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if found:
                first, last = int(found[1]), min(int(found[2]), len(data) - 1)
                headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"} | hub.tampered
                data = data[first : max(first, last + 1 + min(hub.surplus, 0))]
                data += bytes(max(0, hub.surplus))
            self.send_response(206 if found else 200)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not send:
                return
            limit = hub.breaks.pop(file, hub.truncate.get(file, len(data)))
            for at in range(0, min(limit, len(data)), 1 << 16):
                part = data[at : min(at + (1 << 16), limit)]
                with hub.lock:  # before the client can know
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


def settle(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub's client asks this hub, without a token, and keeps what comes in `home`."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    close_session()

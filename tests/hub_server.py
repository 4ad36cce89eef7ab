"""A hub on the loopback interface, with what downloading files and byte ranges needs.

HEAD and GET of /{owner}/{name}/resolve/{revision}/{file}, with Range, ETag, X-Repo-Commit and the
error codes that huggingface_hub distinguishes; and, if it redirects to storage as the real hub
does, of /stored/{owner}/{name}/{file}. The list of files is at
/api/models/{owner}/{name}/tree/{revision}.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from uuid import uuid4

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _cache_assets

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADER_REQUEST_BYTES = 128 << 10
"""Size of the first request of this package, for a header."""


class Hub:
    """What the server serves, the requests that it received, and faults to simulate.

    Attributes:
        repos: "owner/name" → folder.
        requests: (method, repo, file), in order.
        ranges: of each GET, the requested range: (file, "bytes=0-99" or "").
        authorizations: (host, file, Authorization header) of each request.
        bytes_sent: of each file's content.
        revisions: name → commit.
        error_status: file → (status, error code) of the response to every request for it.
        transient_failures: file → number of requests to respond to with 503.
        truncate: file → bytes of a body to send before closing the connection.
        truncate_once: as `truncate`, for the next request only.
        etag_overrides: file → ETag, instead of its digest.
        sends_ranges: False: respond with whole files.
        header_overrides: headers of a 206 response ("": omitted).
        extra_bytes: by which the body of a 206 response is too long, or (negative) too short.
        storage_url: redirect to it: None for no redirect, "" for a relative one.
        refusals: file → statuses with which storage refuses the next requests for it.
        refuse_after: bytes of the file that are sent before.
        signed: whether an address of storage can be used only once.
        retry_after: of responses with an error.
        answer: of something that is no hub, to every request: status, headers and body.
        pause_seconds: after each 64 KiB of a body.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.ranges: list[tuple[str, str]] = []
        self.authorizations: list[tuple[str, str, str]] = []
        self.bytes_sent: Counter[str] = Counter()
        self.revisions: dict[str, str] = {"main": COMMIT, COMMIT: COMMIT}
        self.error_status: dict[str, tuple[int, str]] = {}
        self.transient_failures: dict[str, int] = {}
        self.truncate: dict[str, int] = {}
        self.truncate_once: dict[str, int] = {}
        self.etag_overrides: dict[str, str] = {}
        self.sends_ranges = True
        self.header_overrides: dict[str, str] = {}
        self.extra_bytes = 0
        self.storage_url: str | None = None
        self.refusals: dict[str, list[int]] = {}
        self.refuse_after = 0
        self.signed = False
        self.used_addresses: set[str] = set()
        self.retry_after = ""
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.pause_seconds = 0.0
        self.url = ""
        self.lock = Lock()

    def fetched(self) -> list[str]:
        """Files whose content was sent, in order."""
        return [file for method, _, file in self.requests if method == "GET"]

    def clear_log(self) -> None:
        """Clear the record of requests and bytes sent."""
        del self.requests[:], self.ranges[:], self.authorizations[:]
        self.bytes_sent.clear()


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
            with suppress(ConnectionError):  # clients close connections, or are killed
                super().handle()

        def do_HEAD(self) -> None:
            self._respond(send=False)

        def do_GET(self) -> None:
            self._respond(send=True)

        def log_message(self, *_: Any) -> None:
            """Silent: tests check `hub.requests`."""

        def _respond(self, *, send: bool) -> None:
            path, _, query = self.path[1:].partition("?")
            if hub.answer is not None:
                return self._answer(*hub.answer)
            if path.startswith("api/models/"):
                return self._list("/".join(path.split("/")[2:4]))
            is_stored = path.startswith("stored/")
            if is_stored:
                owner, name, *rest = path.removeprefix("stored/").split("/")
                resolve, revision = "resolve", "main"
            else:
                owner, name, resolve, revision, *rest = *path.split("/"), "", ""
            repo, file = f"{owner}/{name}", "/".join(rest).strip("/")
            with hub.lock:
                token = self.headers.get("Authorization", "")
                hub.authorizations.append((self.headers["Host"], file, token))
                if file and not is_stored:  # other requests of the client are not recorded
                    hub.requests.append((self.command, repo, file))
                fails = hub.transient_failures.get(file, 0) > 0
                hub.transient_failures[file] = hub.transient_failures.get(file, 0) - 1
            if resolve != "resolve" or repo not in hub.repos:
                return self._refuse(401, "RepoNotFound", "Repository not found")
            refusals = hub.refusals.get(file, [])
            is_due = bool(refusals) and hub.bytes_sent[file] >= hub.refuse_after
            if is_stored and (is_due or query in hub.used_addresses):
                status = refusals.pop(0) if is_due else 403
                return self._answer(status, {}, b"<Error><Code>AccessDenied</Code></Error>")
            if hub.signed and is_stored:
                hub.used_addresses.add(query)
            if file in hub.error_status or fails:
                return self._refuse(*hub.error_status.get(file, (503, "")), "Refused by this test")
            if revision not in hub.revisions:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            path_on_disk = hub.repos[repo] / file
            if not path_on_disk.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not found")
            data = path_on_disk.read_bytes()
            etag = f'"{hub.etag_overrides.get(file) or hashlib.sha256(data).hexdigest()}"'
            if hub.storage_url is not None and not is_stored and file.endswith(".safetensors"):
                self.send_response(302)
                self.send_header("X-Linked-ETag", etag)
                self.send_header("X-Linked-Size", str(len(data)))
                address = f"{hub.storage_url}/stored/{repo}/{file}?signature={uuid4().hex}"
                self._finish_redirect(address, revision)
                return None
            self._send(file, data, '"of storage"' if is_stored else etag, revision, send=send)
            return None

        def _list(self, repo: str) -> None:
            files = sorted(hub.repos[repo].iterdir()) if repo in hub.repos else []
            entries = [{"type": "file", "path": f.name, "size": 1, "oid": "0"} for f in files]
            data = json.dumps(entries).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send(self, file: str, data: bytes, etag: str, revision: str, *, send: bool) -> None:
            requested = self.headers.get("Range", "")
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", requested)
            if not hub.sends_ranges or "gzip" in self.headers.get("Accept-Encoding", ""):
                match = None  # compressed content has no ranges
            if send:
                hub.ranges.append((file, requested))
            headers = {"X-Repo-Commit": hub.revisions[revision], "ETag": etag}
            if match and int(match[1]) >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if match:
                first, last = int(match[1]), min(int(match[2]), len(data) - 1)
                headers |= {
                    "Content-Range": f"bytes {first}-{last}/{len(data)}"
                } | hub.header_overrides
                data = data[first : max(first, last + 1 + min(hub.extra_bytes, 0))]
                data += bytes(max(0, hub.extra_bytes))
            self.send_response(206 if match else 200)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not send:
                return
            limit = hub.truncate_once.pop(file, hub.truncate.get(file, len(data)))
            for start in range(0, min(limit, len(data)), 1 << 16):
                chunk = data[start : min(start + (1 << 16), limit)]
                with hub.lock:  # before the client can react
                    hub.bytes_sent[file] += len(chunk)
                self.wfile.write(chunk)
                time.sleep(hub.pause_seconds)
            if limit < len(data):
                self.close_connection = True

        def _finish_redirect(self, location: str, revision: str) -> None:
            self.send_header("Location", location)
            self.send_header("X-Repo-Commit", hub.revisions[revision])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("X-Repo-Commit", COMMIT)
            if hub.retry_after:
                self.send_header("Retry-After", hub.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def use_hub(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub to this hub, without a token, and to caches below `home`."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    close_session()

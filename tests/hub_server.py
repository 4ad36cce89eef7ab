"""A hub on the loopback interface: as much of the real one as downloading single files takes.

HEAD and GET of /{owner}/{name}/resolve/{revision}/{file}, with ETag, X-Repo-Commit and the error
codes that huggingface_hub tells its errors by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server holds, what it was asked for, and how it misbehaves.

    Attributes:
        repos: "owner/name" → folder.
        requests: (method, repo, file), in order.
        status: answer every request for a file named here with this status and error code.
        truncate: send only so many bytes of a file named here, and hang up.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.revisions: dict[str, str] = {"main": COMMIT, COMMIT: COMMIT}
        self.status: dict[str, tuple[int, str]] = {}
        self.truncate: dict[str, int] = {}
        self.url = ""

    def fetched(self) -> list[str]:
        """Files whose content was sent, in order."""
        return [file for method, _, file in self.requests if method == "GET"]


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

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests look at `hub.requests`."""

        def _answer(self, *, send: bool) -> None:
            owner, name, resolve, revision, *rest = (
                *self.path.split("?")[0][1:].split("/"),
                "",
                "",
            )
            repo, file = f"{owner}/{name}", "/".join(rest).strip("/")
            if file:  # the client also asks for other things, of no account here
                hub.requests.append((self.command, repo, file))
            if resolve != "resolve" or repo not in hub.repos:
                return self._refuse(401, "RepoNotFound", "Repository not found")
            if file in hub.status:
                return self._refuse(*hub.status[file], "Refused by this test")
            if revision not in hub.revisions:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            place = hub.repos[repo] / file
            if not place.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not found")
            data = place.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", hub.revisions[revision])
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if send:
                self.wfile.write(data[: hub.truncate.get(file, len(data))])
                if file in hub.truncate:
                    self.close_connection = True
            return None

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler

"""Visitors' sessions: open recordings and cached results, in memory only and bounded."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, Waveform
from qwen_audio.serve.asgi import RequestError
from qwen_audio.serve.body import ByteBudget

from .clip import Clip
from .limits import Limits

if TYPE_CHECKING:
    from qwen_audio import SearchResult

__all__ = ["Session", "SessionStore", "Upload"]

_UPLOAD_SECONDS = 120.0
"""Uploads that no page has opened after this long are dropped."""
_OF_A_PART = ("lens", "edit", "choices", "occlusion", "compare", "trace")
"""Views whose results belong to the open part of the recording."""
_MAX_SESSIONS = 500
"""Sessions without a recording are dropped first."""


@dataclass(frozen=True)
class Upload:
    """An uploaded file that has not been opened yet.

    Attributes:
        received: `time.monotonic()` at its arrival.
    """

    name: str
    data: bytes
    received: float


@dataclass(eq=False)
class Session:
    """One visitor's open page.

    Attributes:
        clip, other_clip: the open recording and the one it is compared with.
        search_results: windows of the collection found by the last search.
        last_used: `time.monotonic()` at the last request.
        is_answering: whether a question is being answered.
        answers: questions and answers, newest first.
        stopped_question: number of the question whose answer the visitor has ended.
        results: what each view shows, for downloads and snippets.
        openings: recordings that have been chosen so far.
    """

    last_used: float
    clip: Clip | None = None
    other_clip: Clip | None = None
    search_results: list[SearchResult] = field(default_factory=list)
    is_answering: bool = False
    answers: list[dict[str, Any]] = field(default_factory=list)
    stopped_question: int | None = None
    results: dict[str, Any] = field(default_factory=dict)
    openings: int = 0

    def begin_opening(self) -> Callable[[], bool]:
        """Before a recording is decoded. Returns whether it is still the latest to be opened."""
        self.openings += 1
        number = self.openings
        return lambda: self.openings == number

    @property
    def open_clip(self) -> Clip:
        """The open recording. Raises AudioError, saying what to do, if there is none."""
        if self.clip is None:
            raise AudioError("No recording is open: choose one in the Audio tab first.")
        return self.clip

    def open(self, clip: Clip) -> None:
        """Open another recording: answers and results of the last one are dropped."""
        self.clip, self.answers = clip, []
        self.results.pop("ask", None)
        self.clear_part_results()

    def clear_part_results(self) -> None:
        """Drop the results of the open part; answers, search results and the recording that it is
        compared with stay."""
        for view in _OF_A_PART:
            self.results.pop(view, None)

    @property
    def nbytes(self) -> int:
        """Memory of the open recordings and their cached results."""
        return sum(clip.nbytes for clip in (self.clip, self.other_clip) if clip is not None)


class SessionStore:
    """All sessions, by the id that each open page makes up for itself (Gradio's session hash).

    Attributes:
        uploads: memory of the uploads that are being received, wait to be opened, or are decoded.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.uploads = ByteBudget(limits.upload_memory_bytes)
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._waiting: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, page_id: str | None) -> Session:
        """The session of a page; a new one at its first request."""
        now = time.monotonic()
        with self._lock:
            session = self._sessions.setdefault(str(page_id), Session(now))
            session.last_used = now
            self._sessions.move_to_end(str(page_id))
            self._evict(now)
        return session

    def remove(self, page_id: str | None) -> None:
        """Drop a session, when its page has been closed."""
        from qwen_audio.weights.device import trim_heap  # imports torch

        with self._lock:
            self._sessions.pop(str(page_id), None)
        trim_heap()

    def recording(self, audio_token: str) -> Waveform | None:
        """The recording that a page has open under a token; None: no page has."""
        with self._lock:
            for session in self._sessions.values():
                if session.clip is not None and session.clip.audio_token == audio_token:
                    return session.clip.waveform
        return None

    @contextmanager
    def receiving(self, nbytes: int) -> Iterator[Callable[[str, bytes], str]]:
        """Memory for an upload of at most `nbytes`, while it is received.

        Uploads that wait to be opened give way, the oldest first.

        Yields:
            A function that stores the upload, from its name and data, until its page opens it, and
            returns an unguessable ticket, valid once.

        Raises:
            RequestError: (503) if other uploads take all memory.
        """
        now = time.monotonic()
        with self._lock:
            self._drop_expired(now)
            while not self.uploads.reserve(nbytes):
                if not self._waiting:
                    raise RequestError(503, "Too many uploads at once: try again in a moment.")
                self._drop_upload(next(iter(self._waiting)))
            self._evict(now)
        kept = 0

        def store(name: str, data: bytes) -> str:
            nonlocal kept
            ticket, kept = secrets.token_urlsafe(24), len(data)
            with self._lock:
                self._waiting[ticket] = Upload(name, data, time.monotonic())
            return ticket

        try:
            yield store
        finally:
            self.uploads.release(nbytes - kept)

    @contextmanager
    def opened_upload(self, ticket: str) -> Iterator[Upload]:
        """The upload of a ticket, while it is decoded.

        Raises:
            AudioError: if there is none, or it has expired.
        """
        with self._lock:
            upload = self._waiting.pop(ticket, None)
        if upload is None:
            raise AudioError("That upload has expired: choose the file again.")
        try:
            yield upload
        finally:
            self.uploads.release(len(upload.data))

    def _drop_upload(self, ticket: str) -> None:
        self.uploads.release(len(self._waiting.pop(ticket).data))

    def _drop_expired(self, now: float) -> None:
        for ticket, upload in list(self._waiting.items()):
            if now - upload.received > _UPLOAD_SECONDS:
                self._drop_upload(ticket)

    def _evict(self, now: float) -> None:
        """Drop idle sessions and, above the limits of memory and number, the least recent."""
        self._drop_expired(now)
        newest = next(reversed(self._sessions), None)
        total_bytes = self.uploads.reserved
        total_bytes += sum(session.nbytes for session in self._sessions.values())
        excess = len(self._sessions) - _MAX_SESSIONS
        for page_id, session in list(self._sessions.items()):
            idle = now - session.last_used > self.limits.idle_seconds
            if page_id == newest:
                continue
            if idle or (session.nbytes and total_bytes > self.limits.memory_bytes):
                total_bytes -= session.nbytes
                del self._sessions[page_id]
                excess -= 1
        if excess > 0:
            by_use = sorted(self._sessions, key=lambda page_id: self._sessions[page_id].nbytes > 0)
            for page_id in by_use[:excess]:
                if page_id != newest:
                    del self._sessions[page_id]

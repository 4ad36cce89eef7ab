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

from qwen_audio import AudioError, Waveform, Window
from qwen_audio.audio.window import MIN_SECONDS, WINDOW_SECONDS
from qwen_audio.errors import counted
from qwen_audio.serve.asgi import RequestError
from qwen_audio.serve.body import ByteBudget

from .limits import Limits

if TYPE_CHECKING:
    from qwen_audio import AudioSession, HiddenStates, SearchResult

__all__ = ["Clip", "Session", "SessionStore", "Upload"]

_UPLOAD_SECONDS = 120.0
"""Uploads that no page has opened after this long are dropped."""
_OF_A_PART = ("lens", "edit", "choices", "occlusion", "compare", "trace")
"""Views whose results belong to the open part of the recording."""
_ROUNDING_SECONDS = 0.01
"""Links hold the edges of a part in hundredths of a second."""
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
class Clip:
    """A recording that a visitor has open, with cached results.

    Tabs work on its open part: a window of the model, or seconds that the visitor selected.

    Attributes:
        example, row: the example, or the row of the collection, that it was opened as.
        windows: the windows that the model processes one at a time.
        window_index: the selected window.
        part: the selected seconds; None: all of the window.
        audio_token: by which its page, and nobody else, fetches its audio.
        hidden_states: cached rows of the open part, by tap.
        tap_seconds: seconds from samples to a tap's rows, by tap.
        audio_sessions: encoded audio by part; None is the whole recording.
        audio_session_bytes: estimated memory of `audio_sessions`.
        conversations: question and prompt style (chat True or False, None for the checkpoint's
            default) of each turn, by the keys of `audio_sessions`.
        file_name: as it is on the visitor's disk; `name` is for display.
    """

    waveform: Waveform
    example: str | None = None
    row: str | None = None
    windows: tuple[Window, ...] = ()
    window_index: int = 0
    part: Window | None = None
    audio_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    hidden_states: dict[str, HiddenStates] = field(default_factory=dict)
    tap_seconds: dict[str, float] = field(default_factory=dict)
    audio_sessions: dict[Window | None, AudioSession] = field(default_factory=dict)
    audio_session_bytes: int = 0
    conversations: dict[Window | None, list[tuple[str, bool | None]]] = field(default_factory=dict)
    file_name: str = ""

    def __post_init__(self) -> None:
        self.windows = self.waveform.windows()
        self.file_name = self.file_name or self.name

    @property
    def name(self) -> str:
        """The file's name, on one line."""
        return self.waveform.name

    @property
    def window(self) -> Window:
        """The open part."""
        return self.windows[self.window_index] if self.part is None else self.part

    @property
    def window_of_many(self) -> Window | None:
        """The open part, or None if that is the whole recording."""
        return self.window if len(self.windows) > 1 or self.part is not None else None

    @property
    def window_waveform(self) -> Waveform:
        """The samples of the open part."""
        if self.window_of_many is None:
            return self.waveform
        return Waveform(self.waveform.samples_in(self.window), name=self.name)

    def select_window(self, index: Any) -> None:
        """Open a window of the model; cached results of another part are dropped.

        Raises:
            AudioError: for anything but the number of a window.
        """
        if type(index) is not int or not 0 <= index < len(self.windows):
            count = counted(len(self.windows), "window")
            raise AudioError(f"{self.name} has {count}: choose one of them, from 0 on")
        self._open_part(None, index)

    def select_part(self, part: Any) -> None:
        """Open seconds of the recording, [start, end]; None: all of its window.

        Raises:
            AudioError: for other values, seconds outside the recording, and a part that is too
                short for one audio token or longer than the model processes at once.
        """
        if part is None:
            self._open_part(None, self.window_index)
            return
        numbers = isinstance(part, list) and len(part) == 2
        if not numbers or not all(type(edge) in (int, float) for edge in part):
            raise AudioError(f"part {part!r:.40}: give a start and an end in seconds")
        duration = self.waveform.duration_seconds
        start, end = float(part[0]), min(float(part[1]), duration)
        is_inside = 0 <= start < end and part[1] <= duration + _ROUNDING_SECONDS
        if not is_inside or not MIN_SECONDS <= end - start <= WINDOW_SECONDS + _ROUNDING_SECONDS:
            raise AudioError(
                f"{self.name} lasts {duration:.2f} s: select seconds of it, at least "
                f"{MIN_SECONDS:g} and at most {WINDOW_SECONDS:g}"
            )
        self._open_part(Window(start, end), self.window_index)

    def _open_part(self, part: Window | None, index: int) -> None:
        if (part, index) != (self.part, self.window_index):
            self.part, self.window_index = part, index
            self.hidden_states, self.tap_seconds = {}, {}

    @property
    def is_silent(self) -> bool:
        """Whether no sample exceeds one step of 16-bit audio."""
        return not bool((abs(self.waveform.samples) > 2**-15).any())

    @property
    def nbytes(self) -> int:
        """Memory of the samples and cached results."""
        cached = list(self.hidden_states.values())  # the model's thread may be adding to them
        rows = sum(states.data.nbytes for states in cached)
        return self.waveform.samples.nbytes + rows + self.audio_session_bytes


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

"""What each visitor has open: in memory only, theirs alone, bounded, and gone when they leave."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, Waveform, Window
from qwen_audio.weights.device import trim_heap

from .limits import Limits

if TYPE_CHECKING:
    from qwen_audio import AudioSession, HiddenStates, SearchResult

__all__ = ["Clip", "Session", "SessionStore", "Upload"]

_UPLOAD_SECONDS = 120.0
"""An upload that nobody opens is let go after so long."""


@dataclass(frozen=True)
class Upload:
    """A file on its way in: its bytes and what the visitor calls it."""

    name: str
    data: bytes
    arrived: float


@dataclass(eq=False)
class Clip:
    """A recording that a visitor has open, and what was computed of it.

    Attributes:
        windows: the parts that the model hears at once.
        window: which one is looked at.
        frames: rows of the taps of that window, as far as they are kept.
        timings: seconds that reading at a tap took, from sound to rows.
        listenings: of the window (by its number), or of all (-1).
        turns: question and prompt (chat, plain, or None for the usual) of the conversation with
            each of them.
    """

    waveform: Waveform
    windows: tuple[Window, ...] = ()
    window: int = 0
    frames: dict[str, HiddenStates] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    listenings: dict[int, AudioSession] = field(default_factory=dict)
    listening_bytes: int = 0
    turns: dict[int, list[tuple[str, bool | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.windows = self.waveform.windows()

    @property
    def name(self) -> str:
        """The file's."""
        return self.waveform.name

    @property
    def seen(self) -> Window:
        """The window that is looked at."""
        return self.windows[self.window]

    @property
    def several(self) -> Window | None:
        """The window that is looked at, if there are others."""
        return self.seen if len(self.windows) > 1 else None

    @property
    def part(self) -> Waveform:
        """What is heard in that window."""
        if len(self.windows) == 1:
            return self.waveform
        return Waveform(self.waveform.samples_in(self.seen), name=self.name)

    def turn_to(self, window: int) -> None:
        """Look at another window: what was computed of the last one is let go."""
        if not 0 <= window < len(self.windows):
            raise AudioError(f"{self.name} has {len(self.windows)} windows: choose one of them")
        if window != self.window:
            self.window = window
            self.frames, self.timings = {}, {}

    @property
    def silent(self) -> bool:
        """Whether nothing in it is louder than 16-bit rounding."""
        return not bool((abs(self.waveform.samples) > 2**-15).any())

    @property
    def bytes_held(self) -> int:
        """Memory that it takes."""
        rows = sum(frames.data.nbytes for frames in self.frames.values())
        return self.waveform.samples.nbytes + rows + self.listening_bytes


@dataclass(eq=False)
class Session:
    """One visitor: one open page.

    Attributes:
        clip, other: what is open, and what it is compared with.
        found: windows of a collection, as they were found last.
        last_seen: when they asked for something.
        asking: whether a question of theirs is being answered.
        kept: what a view shows, for whoever takes it away.
    """

    last_seen: float
    clip: Clip | None = None
    other: Clip | None = None
    found: list[SearchResult] = field(default_factory=list)
    asking: bool = False
    answers: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def opened(self) -> Clip:
        """The clip. Raises AudioError, telling what to do, if there is none."""
        if self.clip is None:
            raise AudioError("No recording is open: choose one under Hear first.")
        return self.clip

    def open(self, clip: Clip) -> None:
        """Another recording: what was said of the last one goes, and what was made of it."""
        self.clip, self.answers = clip, []
        self.kept.pop("ask", None)
        self.look_anew()

    def look_anew(self) -> None:
        """What was made of the window before goes; what was found in a collection stays."""
        self.other = None
        for view in ("lens", "compare"):
            self.kept.pop(view, None)

    @property
    def bytes_held(self) -> int:
        """Memory that their recordings and what was computed of them take."""
        return sum(clip.bytes_held for clip in (self.clip, self.other) if clip is not None)


class SessionStore:
    """All visitors, by the name that each page makes up for itself."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, Session] = OrderedDict()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, page: str | None) -> Session:
        """The visitor of a page, who is known from now on."""
        now = time.monotonic()
        with self._lock:
            visit = self._visits.setdefault(str(page), Session(now))
            visit.last_seen = now
            self._visits.move_to_end(str(page))
            self._make_room(now)
        return visit

    def forget(self, page: str | None) -> None:
        """Their page is closed: everything of theirs goes."""
        with self._lock:
            self._visits.pop(str(page), None)
        trim_heap()

    def take_in(self, name: str, data: bytes) -> str:
        """Keep an upload until its page opens it; returns the ticket for that, which can't be
        guessed and serves once."""
        ticket = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self._lock:
            self._uploads[ticket] = Upload(name, data, now)
            waiting = sum(len(upload.data) for upload in self._uploads.values())
            while waiting > max(self.limits.memory_bytes // 4, len(data)):
                _, oldest = self._uploads.popitem(last=False)
                waiting -= len(oldest.data)
            self._make_room(now)
        return ticket

    def hand_out(self, ticket: str) -> Upload:
        """What was taken in for a ticket. Raises AudioError if there is nothing (any more)."""
        with self._lock:
            upload = self._uploads.pop(ticket, None)
        if upload is None:
            raise AudioError("That upload is not here any more: choose the file again.")
        return upload

    def _make_room(self, now: float) -> None:
        """Forget what is old, and, where memory is short, who has been quiet the longest."""
        for ticket in [
            ticket
            for ticket, upload in self._uploads.items()
            if now - upload.arrived > _UPLOAD_SECONDS
        ]:
            del self._uploads[ticket]
        newest = next(reversed(self._visits), None)
        held = sum(visit.bytes_held for visit in self._visits.values())
        for page, visit in list(self._visits.items()):
            idle = now - visit.last_seen > self.limits.idle_seconds
            if page != newest and (idle or held > self.limits.memory_bytes):
                held -= visit.bytes_held
                del self._visits[page]

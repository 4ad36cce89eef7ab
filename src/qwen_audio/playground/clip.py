"""A recording that a visitor has open: its part that tabs work on, and cached results."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, Waveform, Window
from qwen_audio.audio.window import MIN_SECONDS, WINDOW_SECONDS
from qwen_audio.errors import counted

if TYPE_CHECKING:
    from qwen_audio import AudioSession, HiddenStates

__all__ = ["Clip"]

_ROUNDING_SECONDS = 0.01
"""Links hold the edges of a part in hundredths of a second."""


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

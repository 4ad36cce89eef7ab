"""Ask: the answer streams in; what was heard is kept for the next question."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, OptionError
from qwen_audio.playground.context import AppContext, user_message
from qwen_audio.playground.sessions import Clip, Session

if TYPE_CHECKING:
    from qwen_audio import AudioSession, Description

__all__ = ["CHAT", "PLAIN", "WHOLE", "WINDOW", "Asking"]

PLAIN, CHAT = "Plain (base)", "Chat (Instruct)"
WINDOW, WHOLE = "This window", "The whole recording"
_KEPT_ANSWERS = 20
_LETTERS = 1000
"""Of a question, at most."""

_TOGETHER_SECONDS = 0.08
"""A page that is sent for every token takes as long as the tokens do."""

_Pieces = queue.SimpleQueue[str | Exception | None]


class _LeftError(Exception):
    """Nobody waits for this answer any more."""


class Asking:
    """The tab's handlers."""

    def __init__(self, room: AppContext) -> None:
        self.room = room

    @property
    def usual_style(self) -> str:
        """How this checkpoint was taught to be asked."""
        prompt = self.room.model.spec("lm.0").prompt or ""
        return PLAIN if prompt.startswith("<|audio_bos|>") else CHAT

    def ask(
        self, question: str, style: str, follow_up: bool, part: str, request: Any
    ) -> Iterator[str]:
        """The answers so far as HTML, again and again while the newest grows."""
        visit = self.room.visit(request)
        if visit.asking:
            yield _page(visit, "One question at a time: the last answer is still coming.")
            return
        visit.asking = True
        try:
            yield from self._answer(visit, question, style, follow_up, part)
        except Exception as error:  # noqa: BLE001 (whatever it is, the visitor is told)
            visit.answers = [entry for entry in visit.answers if entry["said"] is not None]
            yield _page(visit, user_message(error))
        finally:
            visit.asking = False

    def clear(self, request: Any) -> str:
        """Another recording is open: what was said of the last one goes."""
        return _page(self.room.visit(request))

    def _answer(
        self, visit: Session, question: str, style: str, follow_up: bool, part: str
    ) -> Iterator[str]:
        clip = visit.opened
        if len(question) > _LETTERS:
            raise AudioError(f"A question has at most {_LETTERS} letters: ask in fewer words.")
        if follow_up and style != CHAT:
            raise OptionError(
                f"A follow-up needs a conversation: choose {CHAT}, or untick Follow up."
            )
        whole = part == WHOLE or len(clip.windows) == 1
        key = -1 if whole else clip.window
        entry: dict[str, Any] = {"question": question.strip(), "text": "", "said": None}
        visit.answers = [entry, *visit.answers[: _KEPT_ANSWERS - 1]]
        start = time.perf_counter()
        pieces: _Pieces = queue.SimpleQueue()
        left = threading.Event()

        def hand_over(text: str) -> None:
            if left.is_set():
                raise _LeftError
            pieces.put(text)

        def work() -> None:
            try:
                heard, entry["reused"] = self._listening(clip, key)
                entry["said"] = heard.ask(
                    question.strip() or None,
                    follow_up=follow_up,
                    chat=style == CHAT,
                    stream=hand_over,
                    max_new_tokens=self.room.limits.answer_tokens,
                )
                pieces.put(None)
            except Exception as error:  # noqa: BLE001 (raised again where it is waited for)
                pieces.put(error)

        self.room.run_on_model_thread(work)
        try:
            yield _page(visit)
            for text in _gathered(pieces):
                entry.setdefault("first", time.perf_counter() - start)
                entry["text"] += text
                yield _page(visit)
            entry["text"] = str(entry["said"])
            entry["seconds"] = time.perf_counter() - start
            entry["depth"] = str(self.room.model.taps[-1])
            chat = None if style == self.usual_style else style == CHAT
            before = clip.turns.get(key, []) if follow_up and entry["reused"] else []
            clip.turns[key] = [*before, (entry["question"], chat)]
            visit.kept["ask"] = clip.turns[key], None if whole else clip.seen
        finally:
            left.set()
        yield _page(visit)

    def _listening(self, clip: Clip, key: int) -> tuple[AudioSession, bool]:
        """What was heard, and whether it was kept from an earlier question."""
        if key in clip.listenings:
            return clip.listenings[key], True
        heard = self.room.model.session(clip.waveform if key < 0 else clip.part)
        geometry = self.room.model.dimensions
        # Keys and values of every level, as float32, are the most that it comes to.
        size = 8 * heard.audio_tokens * geometry.lm_layers * geometry.lm_width
        room = self.room.limits.memory_bytes // 4
        if clip.listening_bytes + size > room:
            clip.listenings, clip.listening_bytes = {}, 0
        if size <= room:
            clip.listenings[key] = heard
            clip.listening_bytes += size
        return heard, False


def _gathered(pieces: _Pieces) -> Iterator[str]:
    """The first piece at once, and then what comes within a moment together, up to None."""
    pause = 0.0
    while True:
        text, piece, end = "", pieces.get(), time.perf_counter() + pause
        while isinstance(piece, str):
            text += piece
            try:
                piece = pieces.get(timeout=max(0.0, end - time.perf_counter()))
            except queue.Empty:
                break
        if text:
            yield text
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            return
        pause = _TOGETHER_SECONDS


def _page(visit: Session, problem: str = "") -> str:
    told = f'<p class="pg-status" data-kind="problem" role="alert">{escape(problem)}</p>'
    return (told if problem else "") + "".join(map(_entry, visit.answers))


def _entry(entry: dict[str, Any]) -> str:
    question = escape(entry["question"] or "Describe the music:")
    lines = entry["text"].splitlines() or [""]
    done = "seconds" in entry
    state = "" if done else ' aria-busy="true"'
    text = "".join(f"<p>{_timed(line)}</p>" for line in lines)
    if not done and not entry["text"]:
        text = '<p class="pg-waiting">Listening …</p>'
    return (
        f'<article class="pg-answer"{state}><h3>{question}</h3><div class="pg-text">{text}</div>'
        f"{_given(entry) if done else ''}</article>"
    )


def _timed(line: str) -> str:
    """An answer about one of several windows begins with its time."""
    window, gap, text = line.partition("  ")
    if not gap:
        return escape(line)
    return f"<time>{escape(window)}</time> {escape(text)}"


def _given(entry: dict[str, Any]) -> str:
    """What the model was given, and what it took."""
    said: Description = entry["said"]
    answers = said.answers
    end, start = answers[-1].window.end_seconds, answers[0].window.start_seconds
    windows = f" in {len(answers)} windows" if len(answers) > 1 else ""
    heard = "heard before" if entry["reused"] else "heard now"
    facts = {
        "heard": f"{end - start:.2f} s{windows}, {heard}",
        "audio tokens": str(sum(answer.audio_tokens for answer in answers)),
        "prompt tokens": str(sum(answer.prompt_tokens for answer in answers)),
        "said": f"{sum(len(answer.token_ids) for answer in answers)} tokens"
        + ("" if said.complete else ", cut off"),
        "depth": f"mel → {entry['depth']} → text, {answers[0].dtype}",
        "first word": f"{entry['first']:.2f} s" if "first" in entry else "–",
        "all of it": f"{entry['seconds']:.2f} s",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="pg-facts">{rows}</dl>'

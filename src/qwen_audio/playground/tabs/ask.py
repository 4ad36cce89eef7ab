"""Ask tab: questions about the recording, answered as a stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, OptionError
from qwen_audio.errors import counted
from qwen_audio.playground.context import AppContext, user_message
from qwen_audio.playground.sessions import Clip, Session

if TYPE_CHECKING:
    from qwen_audio import AudioSession, Description

__all__ = ["CHAT", "PLAIN", "WHOLE", "WINDOW", "AskTab"]

PLAIN, CHAT = "Plain (base)", "Chat (Instruct)"
WINDOW, WHOLE = "This window", "The whole recording"
_MAX_ANSWERS = 20
_MAX_QUESTION_CHARACTERS = 1000
_UPDATE_SECONDS = 0.08
"""Shortest time between updates: sending one for every token takes as long as generating it."""

_Chunks = queue.SimpleQueue[str | Exception | None]
"""Generated text; at the end None or the error."""


class _DisconnectedError(Exception):
    """The page that asked is gone."""


class AskTab:
    """Request handlers of the Ask tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @property
    def default_style(self) -> str:
        """The prompt style that the checkpoint was trained with."""
        prompt = self.context.model.spec("lm.0").prompt or ""
        return PLAIN if prompt.startswith("<|audio_bos|>") else CHAT

    def ask(
        self, question: str, style: str, follow_up: bool, scope: str, request: Any
    ) -> Iterator[str]:
        """Answer a question: yields HTML of all answers, again as the newest grows.

        Args:
            style: PLAIN or CHAT.
            scope: WINDOW or WHOLE.
        """
        session = self.context.session(request)
        if session.is_answering:
            yield _answers_html(session, "One question at a time: wait for the current answer.")
            return
        session.is_answering = True
        try:
            yield from self._answer(session, question, style, follow_up, scope)
        except Exception as error:  # noqa: BLE001 (any failure must reach the visitor)
            session.answers = [entry for entry in session.answers if entry["answer"] is not None]
            yield _answers_html(session, user_message(error))
        finally:
            session.is_answering = False

    def refresh(self, request: Any) -> str:
        """HTML of the current recording's answers: none, after another one was opened."""
        return _answers_html(self.context.session(request))

    def _answer(
        self, session: Session, question: str, style: str, follow_up: bool, scope: str
    ) -> Iterator[str]:
        clip = session.open_clip
        if len(question) > _MAX_QUESTION_CHARACTERS:
            raise AudioError(
                f"The question has {len(question)} characters: use at most "
                f"{_MAX_QUESTION_CHARACTERS}."
            )
        if follow_up and style != CHAT:
            raise OptionError(
                f"A follow-up needs a conversation: choose {CHAT}, or clear Follow up."
            )
        whole = scope == WHOLE or len(clip.windows) == 1
        key = -1 if whole else clip.window_index
        entry: dict[str, Any] = {"question": question.strip(), "text": "", "answer": None}
        session.answers = [entry, *session.answers[: _MAX_ANSWERS - 1]]
        start = time.perf_counter()
        chunks: _Chunks = queue.SimpleQueue()
        disconnected = threading.Event()

        def stream(text: str) -> None:
            if disconnected.is_set():
                raise _DisconnectedError
            chunks.put(text)
            self.context.thread.let_others_run()

        def generate() -> None:
            try:
                audio_session, entry["reused"] = self._audio_session(clip, key)
                entry["answer"] = audio_session.ask(
                    question.strip() or None,
                    follow_up=follow_up,
                    chat=style == CHAT,
                    stream=stream,
                    max_new_tokens=self.context.limits.max_new_tokens,
                )
                chunks.put(None)
            except Exception as error:  # noqa: BLE001 (raised again by whoever reads the queue)
                chunks.put(error)

        self.context.run_on_model_thread(generate)
        try:
            yield _answers_html(session)
            for text in _batched(chunks):
                entry.setdefault("first_token_seconds", time.perf_counter() - start)
                entry["text"] += text
                yield _answers_html(session)
            entry["text"] = str(entry["answer"])
            entry["seconds"] = time.perf_counter() - start
            entry["last_tap"] = str(self.context.model.taps[-1])
            chat = None if style == self.default_style else style == CHAT
            turns = clip.conversations.get(key, []) if follow_up and entry["reused"] else []
            clip.conversations[key] = [*turns, (entry["question"], chat)]
            session.results["ask"] = clip.conversations[key], None if whole else clip.window
        finally:
            disconnected.set()
        yield _answers_html(session)

    def _audio_session(self, clip: Clip, key: int) -> tuple[AudioSession, bool]:
        """The encoded audio of a window or (-1) of all, and whether it was cached."""
        if key in clip.audio_sessions:
            return clip.audio_sessions[key], True
        audio_session = self.context.model.session(
            clip.waveform if key < 0 else clip.window_waveform
        )
        dimensions = self.context.model.dimensions
        # An upper bound: keys and values of all layers in float32.
        positions = audio_session.audio_tokens + audio_session.padding_tokens
        nbytes = 8 * positions * dimensions.lm_layers * dimensions.lm_width
        limit = self.context.limits.memory_bytes // 4
        if clip.audio_session_bytes + nbytes > limit:
            clip.audio_sessions, clip.audio_session_bytes = {}, 0
        if nbytes <= limit:
            clip.audio_sessions[key] = audio_session
            clip.audio_session_bytes += nbytes
        return audio_session, False


def _batched(chunks: _Chunks) -> Iterator[str]:
    """The first chunk at once, later ones joined over _UPDATE_SECONDS, up to None.

    Raises:
        Exception: the one in the queue.
    """
    wait_seconds = 0.0
    while True:
        text, chunk, deadline = "", chunks.get(), time.perf_counter() + wait_seconds
        while isinstance(chunk, str):
            text += chunk
            try:
                chunk = chunks.get(timeout=max(0.0, deadline - time.perf_counter()))
            except queue.Empty:
                break
        if text:
            yield text
        if isinstance(chunk, Exception):
            raise chunk
        if chunk is None:
            return
        wait_seconds = _UPDATE_SECONDS


def _answers_html(session: Session, problem: str = "") -> str:
    alert = f'<p class="pg-status" data-kind="problem" role="alert">{escape(problem)}</p>'
    return (alert if problem else "") + "".join(map(_answer_html, session.answers))


def _answer_html(entry: dict[str, Any]) -> str:
    question = escape(entry["question"] or "Describe the music:")
    lines = entry["text"].splitlines() or [""]
    done = "seconds" in entry
    state = "" if done else ' aria-busy="true"'
    text = "".join(f"<p>{_line_html(line)}</p>" for line in lines)
    if not done and not entry["text"]:
        text = '<p class="pg-waiting">Generating …</p>'
    return (
        f'<article class="pg-answer"{state}><h3>{question}</h3><div class="pg-text">{text}</div>'
        f"{_facts_html(entry) if done else ''}</article>"
    )


def _line_html(line: str) -> str:
    """A line of an answer; the time that begins it, if there are several windows, is marked up."""
    window, gap, text = line.partition("  ")
    if not gap:
        return escape(line)
    return f"<time>{escape(window)}</time> {escape(text)}"


def _facts_html(entry: dict[str, Any]) -> str:
    """What the model was given, what it generated, and how long it took."""
    description: Description = entry["answer"]
    answers = description.answers
    end, start = answers[-1].end_seconds, answers[0].start_seconds
    windows = f" in {len(answers)} windows" if len(answers) > 1 else ""
    first_token = entry.get("first_token_seconds")
    facts = {
        "audio": f"{end - start:.2f} s{windows}, "
        + ("encoded before" if entry["reused"] else "encoded now"),
        "audio tokens": str(sum(answer.audio_tokens for answer in answers)),
        "prompt tokens": str(sum(answer.prompt_tokens for answer in answers)),
        "generated": counted(sum(len(answer.token_ids) for answer in answers), "token")
        + ("" if description.complete else ", cut off"),
        "layers": f"mel → {entry['last_tap']} → text, {answers[0].dtype}",
        "first token": "–" if first_token is None else f"{first_token:.2f} s",
        "total time": f"{entry['seconds']:.2f} s",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="pg-facts">{rows}</dl>'

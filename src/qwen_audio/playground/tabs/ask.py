"""Ask tab: questions about the recording, answered as a stream, alone or in a conversation."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, CheckpointError, OptionError, QwenAudioError
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext, report_errors, report_stream_errors
from qwen_audio.playground.sessions import Session
from qwen_audio.playground.suggested_questions import (
    MAX_QUESTION_CHARACTERS,
    SuggestedQuestions,
    suggested_questions,
)

from .answers import GivenAnswer, prompt_style

if TYPE_CHECKING:
    from qwen_audio import AudioSession, Window

__all__ = ["AskTab", "question_of"]

_MAX_ANSWERS = 20
_UPDATE_SECONDS = 0.08
"""Shortest time between updates: sending one for every token takes as long as generating it."""

_Chunks = queue.SimpleQueue[str | Exception | None]
"""Generated text; at the end None or the error."""


class _DisconnectedError(Exception):
    """The page that asked is gone."""


class _StoppedError(Exception):
    """The visitor has stopped the answer."""


class AskTab:
    """Request handlers of the Ask tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def questions(self, _data: dict[str, Any], _request: Any) -> dict[str, Any]:
        """What the page offers to ask, and how it may be asked."""
        suggested = self._suggested
        return {
            "about": suggested.about,
            "note": suggested.note,
            "questions": suggested.questions,
            "choices": [
                {"question": question, "choices": choices}
                for question, choices in suggested.choices
            ],
            "default_question": self._default_question,
            "style": prompt_style(self._uses_chat_template),
            "no_conversation": self._conversation_refusal,
        }

    @report_stream_errors
    def ask(self, data: dict[str, Any], request: Any) -> Iterator[dict[str, Any]]:
        """Answer a "question" (empty: the default one): {"answer": …}, again as it grows.

        With "conversation" through the chat template, after the earlier turns about the same
        seconds, or with "new" as the first turn; else alone, as the checkpoint was trained. Of the
        open part, or with "whole" of the whole recording. "number" is the page's, for `stop`.
        """
        session = self.context.session(request)
        if session.is_answering:
            raise AudioError("One question at a time: wait for the current answer, or stop it.")
        question = question_of(data)
        is_conversation = data.get("conversation") is True
        if is_conversation and self._conversation_refusal is not None:
            raise OptionError(self._conversation_refusal)
        clip = session.open_clip
        whole = data.get("whole") is True or clip.window_of_many is None
        given = GivenAnswer(
            number=data["number"] if type(data.get("number")) is int else -1,
            question=question or self._default_question,
            is_conversation=is_conversation,
            is_chat=is_conversation or self._uses_chat_template,
            part=None if whole else clip.window,
            last_tap=str(self.context.model.taps[-1]),
        )
        session.is_answering = True
        try:
            yield from self._answer(session, clip, given, question, data.get("new") is True)
        finally:
            session.is_answering = False

    @report_errors
    def stop(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """End the answer to the question of a "number", also one that still waits its turn."""
        number = data.get("number")
        if type(number) is int:
            self.context.session(request).stopped_question = number
        return {}

    @cached_property
    def _suggested(self) -> SuggestedQuestions:
        return suggested_questions(self.context.model)

    @property
    def _uses_chat_template(self) -> bool:
        """Whether the checkpoint was trained with its chat template, or loaded to use it."""
        return self.context.model.pipeline.tokenizer.uses_chat_template

    @property
    def _default_question(self) -> str:
        return self.context.model.pipeline.tokenizer.format.default_prompt

    @cached_property
    def _conversation_refusal(self) -> str | None:
        """Why a second question can't follow an answer; None: it can."""
        tokenizer = self.context.model.pipeline.tokenizer
        try:
            answer = {"role": "assistant", "content": "Yes."}
            second = tokenizer.turns("Why?", audio=False)
            tokenizer.apply_chat_template([*tokenizer.turns("Is it?"), answer, *second])
        except CheckpointError:
            return (
                "This model has no chat template, through which earlier questions and answers "
                "would be given to it: each question is asked alone."
            )
        except QwenAudioError:
            return "This model's chat template takes one question: each is asked alone."
        return None

    def _answer(
        self, session: Session, clip: Clip, given: GivenAnswer, question: str | None, is_new: bool
    ) -> Iterator[dict[str, Any]]:
        turns = _earlier_turns(session, clip, given.part) if given.is_conversation else []
        entry = {"question": given.question, "answer": None, "given": given}
        session.answers = [entry, *session.answers[: _MAX_ANSWERS - 1]]
        start = time.perf_counter()
        chunks: _Chunks = queue.SimpleQueue()
        disconnected = threading.Event()

        def check() -> None:
            if disconnected.is_set():
                raise _DisconnectedError
            if session.stopped_question == given.number:
                raise _StoppedError

        def stream(text: str) -> None:
            check()
            chunks.put(text)
            self.context.thread.let_others_run()

        def generate() -> None:
            try:
                check()
                audio_session, given.is_cached = self._audio_session(clip, given.part)
                follow_up = bool(turns) and given.is_cached and not is_new
                options = {"follow_up": follow_up, "chat": given.is_chat}
                given.begin(audio_session, question, len(turns) + 1 if follow_up else 1, **options)
                given.were_turns_dropped = bool(turns) and not follow_up and not is_new
                given.answer = audio_session.ask(
                    question,
                    stream=stream,
                    max_new_tokens=self.context.limits.max_new_tokens,
                    **options,
                )
                chunks.put(None)
            except Exception as error:  # noqa: BLE001 (raised again by whoever reads the queue)
                chunks.put(error)

        self.context.run_on_model_thread(generate)
        try:
            yield given.update()
            for text in _batched(chunks):
                if given.first_token_seconds is None:
                    given.first_token_seconds = time.perf_counter() - start
                given.text += text
                yield given.update()
            given.text = str(given.answer)
        except _StoppedError:
            given.is_stopped = True
            clip.conversations.pop(given.part, None)  # some of its windows may have been answered
        except Exception:
            session.answers = [each for each in session.answers if each is not entry]
            if len(given.windows) > 1:
                clip.conversations.pop(given.part, None)
            raise
        else:
            entry["answer"] = given.answer
            chat = None if given.is_chat == self._uses_chat_template else given.is_chat
            earlier = turns if given.turn > 1 else []
            clip.conversations[given.part] = [*earlier, (question or "", chat)]
            if session.clip is clip:
                session.results["ask"] = clip.conversations[given.part], given.part
        finally:
            disconnected.set()
        given.seconds = time.perf_counter() - start
        yield {"answer": given.payload()}

    def _audio_session(self, clip: Clip, part: Window | None) -> tuple[AudioSession, bool]:
        """The encoded audio of a part or (None) of all, and whether it was cached."""
        if part in clip.audio_sessions:
            return clip.audio_sessions[part], True
        audio_session = self.context.model.session(
            clip.waveform if part is None else clip.window_waveform
        )
        dimensions = self.context.model.dimensions
        # An upper bound: keys and values of all layers in float32.
        positions = audio_session.audio_tokens + audio_session.padding_tokens
        nbytes = 8 * positions * dimensions.lm_layers * dimensions.lm_width
        limit = self.context.limits.memory_bytes // 4
        if clip.audio_session_bytes + nbytes > limit:
            clip.audio_sessions, clip.audio_session_bytes = {}, 0
        if nbytes <= limit:
            clip.audio_sessions[part] = audio_session
            clip.audio_session_bytes += nbytes
        return audio_session, False


def question_of(data: dict[str, Any]) -> str | None:
    """The question in a request; None where it is empty, for the checkpoint's default.

    Raises:
        AudioError: for one that is too long, or not text.
    """
    question = data.get("question", "")
    if not isinstance(question, str):
        raise AudioError(f"question {question!r:.40}: give a text")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise AudioError(
            f"The question has {len(question)} characters: use at most {MAX_QUESTION_CHARACTERS}."
        )
    return question.strip() or None


def _earlier_turns(
    session: Session, clip: Clip, part: Window | None
) -> list[tuple[str, bool | None]]:
    """The turns of the conversation that the last question about a part belongs to, if any."""
    asked: Iterator[GivenAnswer] = (entry["given"] for entry in session.answers)
    last = next((given for given in asked if given.part == part), None)
    if last is None or not last.is_conversation or last.is_stopped:
        return []
    return clip.conversations.get(part, [])


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

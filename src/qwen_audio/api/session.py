"""Sessions: one recording, encoded once, and many questions; and conversations about several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from qwen_audio.analysis.scores import Scores
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import Window
from qwen_audio.errors import AudioError, NotFiniteError, OptionError, counted
from qwen_audio.inference.choices import OverWindows
from qwen_audio.inference.generation import CachedContext, GeneratedText
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.models.components.conversation import Message

from .answer import Answer, Description, prefix
from .scorer import Scorer
from .window_answer import padding_tokens, window_answer

__all__ = ["AudioSession", "answer_conversation"]


@dataclass
class _WindowState:
    """One window's audio rows (at `projector`), the cache of its last prompt, and its turns."""

    window: Window
    audio_rows: torch.Tensor
    context: CachedContext
    turns: list[Message] = field(default_factory=list)


class AudioSession:
    """An encoded recording to ask questions about; returned by `AudioModel.session`.

    The encoder has run. The language model's keys and values of the audio are cached by the first
    question, so that later ones only cost their own tokens. Of long recordings, and of several
    sessions, those that fit in memory are kept (`CostEstimate.cache_bytes`); the others are
    computed again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        name: str,
        windows: Sequence[tuple[Window, torch.Tensor]],
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.notes = tuple(notes)
        self.pipeline = pipeline
        self._audio_edits = pipeline.audio_edits
        owner = object()  # not this session itself: with it the caches are freed at once
        self._states = [_WindowState(w, rows, CachedContext(owner)) for w, rows in windows]

    def __repr__(self) -> str:
        count = len(self._states)
        return f"AudioSession({self.name!r}, {counted(count, 'window')})"

    @property
    def windows(self) -> tuple[Window, ...]:
        """The parts of the recording that were encoded at once."""
        return tuple(state.window for state in self._states)

    @property
    def audio_tokens(self) -> int:
        """Over all windows, without those of padding."""
        return sum(len(state.audio_rows) for state in self._states) - self.padding_tokens

    @property
    def padding_tokens(self) -> int:
        """Over all windows: see `Answer`."""
        return sum(padding_tokens(self.pipeline, window) for window in self.windows)

    def ask(
        self,
        prompt: str | None = None,
        *,
        follow_up: bool = False,
        chat: bool | None = None,
        stream: Callable[[str], None] | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        seed: int | None = None,
    ) -> Description:
        """Ask about the recording.

        Questions are independent, and the answer equals that of `describe`; with `follow_up` the
        question continues the conversation so far (Instruct checkpoints).

        Args:
            chat: whether to use the chat template or the plain prompt; by default as the checkpoint
                was trained or loaded.
            stream: called with pieces of the answer as they are generated; together they are the
                answer.

        Raises:
            OptionError: for a follow-up without the chat template, or invalid sampling options.
            AudioError: if the recording overflows in this dtype.
        """
        self.check_edits()
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        use_chat = self._uses_chat(follow_up, chat)
        answers = []
        for number, state in enumerate(self._states):
            if stream is not None:
                times = (state.window.start_seconds, state.window.end_seconds)
                line_start = prefix(*times, is_only=len(self._states) == 1)
                if line_start := ("\n" if number else "") + line_start:
                    stream(line_start)
            try:
                text = self._ask_window(state, prompt, follow_up, use_chat, sampling, stream)
            except NotFiniteError as error:
                raise error.named(self.name) from None
            answers.append(window_answer(text, self.name, number, state.window, self.pipeline))
        return Description(self.name, answers, self.notes)

    def check_edits(self) -> None:
        """Raises OptionError where taps up to the projector, which have been computed, are edited
        otherwise than when they were."""
        now = self.pipeline.audio_edits
        if now != self._audio_edits:
            raise OptionError(
                f"this session's audio was encoded {_with(self._audio_edits)}, and is asked about "
                f"{_with(now)}: make a session of its own inside the edit"
            )

    def prompts(
        self, prompt: str | None = None, *, follow_up: bool = False, chat: bool | None = None
    ) -> list[str]:
        """The rendered prompt with which `ask` would ask about each window, with the placeholder
        where the audio goes.

        Raises:
            OptionError: as `ask` does.
        """
        use_chat = self._uses_chat(follow_up, chat)
        return [self._prompt(state, prompt, follow_up, use_chat) for state in self._states]

    def score(
        self,
        prompt: str | None = None,
        *,
        choices: Sequence[str],
        chat: bool | None = None,
        include_end: bool = False,
        leading_space: bool | None = None,
        length_normalized: bool = False,
        over_windows: OverWindows = "mean",
    ) -> Scores:
        """How likely each choice is as the answer, as `AudioModel.score` says it.

        What is cached of the audio is used, and later questions are answered as without it.

        Args:
            chat: see `ask`.
            prompt, choices, include_end, leading_space, length_normalized, over_windows: see
                `AudioModel.score`.

        Warns, Raises:
            As `AudioModel.score` does.
        """
        self.check_edits()
        scorer = Scorer(
            self.pipeline,
            prompt,
            choices,
            chat=chat,
            include_end=include_end,
            leading_space=leading_space,
            length_normalized=length_normalized,
            over_windows=over_windows,
        )
        try:
            scores = [scorer.scores([state.audio_rows], state.context)[0] for state in self._states]
        except NotFiniteError as error:
            raise error.named(self.name) from None
        result = scorer.result(self.name, self.windows, scores, self.notes)
        scorer.warn()
        return result

    def _ask_window(
        self,
        state: _WindowState,
        prompt: str | None,
        follow_up: bool,
        chat: bool,
        sampling: Sampling,
        stream: Callable[[str], None] | None,
    ) -> GeneratedText:
        tokenizer = self.pipeline.tokenizer
        (text,) = self.pipeline.generate(
            self._prompt(state, prompt, follow_up, chat),
            [[state.audio_rows]],
            sampling,
            chat=chat,
            context=state.context,
            stream=stream,
        )
        # Only now: a question that failed is not part of the conversation.
        turns = self._turns(state, prompt, follow_up)
        answered = [*turns, {"role": "assistant", "content": text.text}]
        state.turns = [] if tokenizer.is_raw(prompt) else answered  # no turn of a conversation
        return text

    def _uses_chat(self, follow_up: bool, chat: bool | None) -> bool:
        """Raises OptionError for a follow-up without the chat template."""
        use_chat = self.pipeline.tokenizer.uses_chat_template if chat is None else chat
        if follow_up and not use_chat:
            raise OptionError(
                "follow_up=True, but this checkpoint is asked with a plain prompt and knows no "
                "turns: ask anew, or load it with chat=True"
            )
        return use_chat

    def _prompt(self, state: _WindowState, prompt: str | None, follow_up: bool, chat: bool) -> str:
        tokenizer = self.pipeline.tokenizer
        if not (follow_up and state.turns):
            return tokenizer.render(prompt, chat)
        if tokenizer.is_raw(prompt):
            raise OptionError(
                f"follow_up=True with a raw prompt, one that contains {tokenizer.format.audio}: "
                "only text can continue a conversation; leave the token out, or ask anew"
            )
        return tokenizer.apply_chat_template(self._turns(state, prompt, follow_up))

    def _turns(self, state: _WindowState, prompt: str | None, follow_up: bool) -> list[Message]:
        """The conversation so far, and the turn that a prompt adds."""
        earlier = state.turns if follow_up else []
        return [*earlier, *self.pipeline.tokenizer.turns(prompt, audio=not earlier)]


def _with(edits: str | None) -> str:
    return "without edits" if edits is None else f"with {edits}"


def answer_conversation(
    pipeline: Pipeline,
    messages: Sequence[Message],
    waveforms: Sequence[Waveform],
    sampling: Sampling,
) -> Answer:
    """The next turn of a conversation with several audios, each encoded as one window.

    The answer's window runs from 0 to the total seconds of all audios.

    Args:
        waveforms: the audios of the messages, in order.

    Raises:
        AudioError: for audio longer than a window.
    """
    longest = pipeline.checkpoint.family.window_limits.max_seconds
    for waveform in waveforms:
        if waveform.duration_seconds > longest:
            raise AudioError(
                f"{waveform.name} lasts {waveform.duration_seconds:.1f} s, but each audio of a "
                f"conversation is encoded at once, up to {longest:g} s: cut it, or use "
                "describe or session, which divide longer audio into windows"
            )
    mels = [pipeline.log_mel(waveform.samples) for waveform in waveforms]
    (text,) = pipeline.generate(
        pipeline.tokenizer.apply_chat_template(messages),
        [pipeline.encode_audio(mels)],
        sampling,
        chat=True,
    )
    audios = [Window(0.0, waveform.duration_seconds) for waveform in waveforms]
    window = Window(0.0, math.fsum(audio.duration_seconds for audio in audios))
    source = ", ".join(waveform.name for waveform in waveforms)
    return window_answer(text, source, 0, window, pipeline, audios)

"""One recording, heard once and asked many times; and conversations about several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WINDOW_SECONDS, Window
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.decoder import DecoderInput
from qwen_audio.inference.generation import TextStream
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.sampling import Sampling
from qwen_audio.models.kv_cache import KeyValueCache, common_prefix
from qwen_audio.models.qwen2_audio.prompt import Message

from .answer import Answer, Description, prefix

__all__ = ["AudioSession", "answer_conversation", "make_answer"]


@dataclass
class _Memory:
    """What the language model has read about one window, and the turns so far."""

    window: Window
    audio: torch.Tensor
    ids: tuple[int, ...] = ()
    cache: KeyValueCache | None = None
    turns: list[Message] = field(default_factory=list)


class AudioSession:
    """A recording that the model has heard; made by `AudioModel.session`.

    The encoder has run. The language model's keys and values for the audio are kept from the first
    question on, so that every later one costs its own tokens alone.
    """

    def __init__(
        self, pipeline: Pipeline, name: str, heard: Sequence[tuple[Window, torch.Tensor]]
    ) -> None:
        self.name = name
        self.pipeline = pipeline
        self._memories = [_Memory(window, rows) for window, rows in heard]

    def __repr__(self) -> str:
        count = len(self._memories)
        return f"AudioSession({self.name!r}, {count} window{'s' * (count != 1)})"

    @property
    def windows(self) -> tuple[Window, ...]:
        """The seconds that were heard at once."""
        return tuple(memory.window for memory in self._memories)

    @property
    def audio_tokens(self) -> int:
        """Over all windows: one per 40 ms."""
        return sum(len(memory.audio) for memory in self._memories)

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

        Each question stands alone, and its answer is what `describe` gives; with `follow_up` it
        continues the conversation of the questions before it (Instruct checkpoints).

        Args:
            chat: whether through the chat template or with the plain prompt; unless given, as the
                checkpoint was taught or loaded.
            stream: called with pieces of the answer as they come; together they are the answer.

        Raises:
            OptionError: for a follow-up to a checkpoint that knows no turns, or bad sampling.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        in_turns = self.pipeline.prompts.chat if chat is None else chat
        if follow_up and not in_turns:
            raise OptionError(
                "follow_up=True, but this checkpoint is asked with a plain prompt and knows no "
                "turns: ask anew, or load it with chat=True"
            )
        answers = []
        for number, memory in enumerate(self._memories):
            if stream is not None:
                separator = "\n" if number else ""
                if lead := separator + prefix(memory.window, len(self._memories)):
                    stream(lead)
            answers.append(self._ask_one(memory, prompt, follow_up, in_turns, sampling, stream))
        return Description(self.name, answers)

    def _ask_one(
        self,
        memory: _Memory,
        prompt: str | None,
        follow_up: bool,
        chat: bool,
        sampling: Sampling,
        stream: Callable[[str], None] | None,
    ) -> Answer:
        pipeline = self.pipeline
        earlier = memory.turns if follow_up else []
        turns = [*earlier, pipeline.prompts.turn(prompt, audio=not earlier)]
        prompt_text = (
            pipeline.prompts.render_chat(turns)
            if earlier
            else pipeline.prompts.render(prompt, chat)
        )
        clip = pipeline.build_inputs(prompt_text, memory.audio)
        cache = pipeline.lm.new_cache(1)
        if memory.cache is not None:
            # The last position is read again in any case: its state says what comes next.
            shared = min(common_prefix(memory.ids, clip.ids), len(clip.ids) - 1)
            cache = memory.cache.truncated(0, shared)
        text = TextStream(pipeline.prompts, stream) if stream is not None else None
        (new,) = pipeline.generate(
            [clip], sampling, chat=chat, cache=cache, on_tokens=text.update if text else None
        )
        memory.cache, memory.ids = cache, (*clip.ids, *new)[: cache.rows(0)]
        answer = make_answer(pipeline, clip, new, memory.window, chat)
        if text:
            text.finish(answer.text)
        # Only now: a question that could not be answered is no part of the conversation.
        memory.turns = [*turns, {"role": "assistant", "content": answer.text}]
        return answer


def answer_conversation(
    pipeline: Pipeline,
    messages: Sequence[Message],
    waveforms: Sequence[Waveform],
    sampling: Sampling,
) -> Answer:
    """The next turn of a conversation whose audios are given in order, each heard at once.

    The answer's window runs from 0 to the seconds of all audios together.

    Raises:
        AudioError: for audio longer than the encoder's reach.
    """
    for waveform in waveforms:
        if waveform.duration_seconds > WINDOW_SECONDS:
            raise AudioError(
                f"{waveform.name} lasts {waveform.duration_seconds:.1f} s, but one audio of a "
                f"conversation is heard at once, up to {WINDOW_SECONDS:g} s: cut it, or use "
                "describe or listen, which hear longer audio in windows"
            )
    audios = pipeline.encode_audio([pipeline.mel(waveform.samples) for waveform in waveforms])
    clip = pipeline.build_inputs(pipeline.prompts.render_chat(messages), *audios)
    (new,) = pipeline.generate([clip], sampling, chat=True)
    seconds = math.fsum(waveform.duration_seconds for waveform in waveforms)
    return make_answer(pipeline, clip, new, Window(0.0, seconds), chat=True)


def make_answer(
    pipeline: Pipeline,
    clip: DecoderInput,
    new: tuple[int, ...],
    window: Window,
    chat: bool | None = None,
) -> Answer:
    """Tokens → an Answer that says what was given."""
    audio_tokens = 0 if clip.audio is None else len(clip.audio)
    return Answer(
        text=pipeline.prompts.text(new).strip(),
        window=window,
        audio_tokens=audio_tokens,
        prompt_tokens=len(clip.ids) - audio_tokens,
        token_ids=new,
        complete=new[-1] in pipeline.prompts.stop_ids(chat),
        dtype=pipeline.dtype_name,
    )

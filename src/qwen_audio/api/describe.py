"""Text about recordings: describe, session, chat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list, is_single
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.errors import OptionError
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.finite import raise_first, run_by_recording
from qwen_audio.inference.generation import GeneratedText
from qwen_audio.inference.interventions import keeps_edits
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.progress_bars import OnWindow, shows_progress, with_progress
from qwen_audio.models.components.conversation import Message, audio_inputs

from .answer import Answer, Description, prefix
from .base import ModelBase
from .options import DescribeOptions, SessionOptions
from .session import AudioSession, answer_conversation
from .window_answer import window_answer

__all__ = ["DescribeMixin"]


class DescribeMixin(ModelBase):
    """Methods that generate text."""

    @overload
    def describe(self, audio: AudioInput, **options: Unpack[DescribeOptions]) -> Description: ...
    @overload
    def describe(
        self, audio: AudioInputs, **options: Unpack[DescribeOptions]
    ) -> list[Description]: ...
    def describe(
        self,
        audio: AudioInput | AudioInputs,
        *,
        prompt: str | None = None,
        stream: Callable[[str], None] | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        seed: int | None = None,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        progress: bool | None = None,
    ) -> Description | list[Description]:
        """Describe each recording, or answer a question about it.

        Args:
            prompt: a question; "Describe the music:" by default. Text that contains `<|AUDIO|>` is
                used as it is, with its markers.
            stream: called with pieces of the answer as they are generated; one recording only.
            max_new_tokens, temperature, top_p, seed: see `Sampling`; greedy by default.
            sampling_rate: of arrays, in Hz.
            track, on_damage: of files; see `load_waveform`.
            window_seconds, hop_seconds: see `AudioModel`.
            progress: show a bar for several recordings; by default in notebooks only.

        Returns:
            A `Description`: a str with an `Answer` for each window.

        Raises:
            AudioError: naming the recording that can't be decoded, or that overflows in this dtype.
            OptionError: for invalid options.
        """
        if stream is not None and not is_single(audio):
            raise OptionError("stream= takes one recording at a time, not a list")
        inputs, single = as_input_list(audio)
        shown = shows_progress(False if len(inputs) < 2 and progress is None else progress)
        answers = self._answers(
            inputs,
            self.pipeline.tokenizer.render(prompt),
            Sampling(max_new_tokens, temperature, top_p, seed),
            LoadOptions(sampling_rate, track, on_damage),
            self.pipeline.window_config(window_seconds, hop_seconds),
            stream,
        )
        descriptions = partial(_descriptions, answers)
        results = list(with_progress(descriptions, shown, len(inputs), "describing"))
        return results[0] if single else results

    @keeps_edits
    def describe_windows(
        self,
        audio: AudioInput,
        *,
        prompt: str | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        seed: int | None = None,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> Iterator[Answer]:
        """The answers of `describe` about one recording, each as soon as it is generated.

        The recording is decoded meanwhile, so that one of hours needs no more memory than one of
        minutes. What is wrong with the rest of a file is found when it is reached: the answers
        before an error hold for their windows, and only a recording without one was described in
        full.

        Args:
            prompt, max_new_tokens, temperature, top_p, seed, sampling_rate, track, on_damage,
            window_seconds, hop_seconds: see `describe`.

        Raises:
            AudioError, OptionError: as `describe` does.
        """
        if not is_single(audio):
            raise OptionError("describe_windows takes one recording at a time, not a list")
        answers = self._answers(
            [audio],
            self.pipeline.tokenizer.render(prompt),
            Sampling(max_new_tokens, temperature, top_p, seed),
            LoadOptions(sampling_rate, track, on_damage),
            self.pipeline.window_config(window_seconds, hop_seconds),
        )
        return (answer for _, answer in answers)

    def _answers(
        self,
        inputs: Sequence[Any],
        prompt_text: str,
        sampling: Sampling,
        load_options: LoadOptions,
        window_config: WindowConfig,
        stream: Callable[[str], None] | None = None,
    ) -> Iterator[tuple[AudioWindow, Answer]]:
        """The answer about each window of all recordings, in order."""

        def generate(windows: Sequence[AudioWindow]) -> list[GeneratedText]:
            audio_rows = self.pipeline.encode_audio([window.log_mel for window in windows])
            if stream is None or not windows:
                return self.pipeline.generate(
                    prompt_text, [[rows] for rows in audio_rows], sampling
                )
            texts = []
            for window, rows in zip(windows, audio_rows, strict=True):
                is_first = window.window.start_seconds == 0
                is_only = is_first and window.recording is not None
                times = (window.window.start_seconds, window.window.end_seconds)
                if line_start := ("" if is_first else "\n") + prefix(*times, is_only=is_only):
                    stream(line_start)
                texts += self.pipeline.generate(prompt_text, [[rows]], sampling, stream=stream)
            return texts

        number = 0
        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            self.pipeline.fetch_weights(None)
            texts = raise_first(run_by_recording(batch, generate))
            for item, text in zip(batch, texts, strict=True):
                yield item, window_answer(text, item.name, number, item.window, self.pipeline)
                number = number + 1 if item.recording is None else 0

    @overload
    def session(self, audio: AudioInput, **options: Unpack[SessionOptions]) -> AudioSession: ...
    @overload
    def session(
        self, audio: AudioInputs, **options: Unpack[SessionOptions]
    ) -> list[AudioSession]: ...
    def session(
        self,
        audio: AudioInput | AudioInputs,
        *,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> AudioSession | list[AudioSession]:
        """Encode a recording once, to ask many questions about it.

        Raises:
            AudioError: naming the recording that can't be decoded, or that overflows in this dtype.
        """
        inputs, single = as_input_list(audio)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        load_options = LoadOptions(sampling_rate, track, on_damage)
        rows_by_clip: dict[int, list[tuple[Window, torch.Tensor]]] = {}
        names: dict[int, str] = {}
        notes: dict[int, tuple[str, ...]] = {}

        def encode(windows: Sequence[AudioWindow]) -> list[torch.Tensor]:
            return self.pipeline.encode_audio([window.log_mel for window in windows])

        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            audio_rows = raise_first(run_by_recording(batch, encode))
            for item, rows in zip(batch, audio_rows, strict=True):
                rows_by_clip.setdefault(item.recording_index, []).append((item.window, rows))
                names[item.recording_index] = item.name
                if item.recording is not None:
                    notes[item.recording_index] = item.recording.notes
        results = [
            AudioSession(self.pipeline, names[clip], windows, notes[clip])
            for clip, windows in rows_by_clip.items()
        ]
        return results[0] if single else results

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        seed: int | None = None,
        sampling_rate: int | None = None,
    ) -> Answer:
        """Answer a conversation of several turns and audios, through the chat template.

        Args:
            messages: transformers' convention: {"role": …, "content": text or a list of
                {"type": "text", "text": …} and {"type": "audio", "audio": any audio input}}.

        Raises:
            OptionError: for a conversation that the template rejects.
            AudioError: for audio that can't be decoded, or is longer than a window may be.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        waveforms = [
            load_waveform(audio, sampling_rate=sampling_rate) for audio in audio_inputs(messages)
        ]
        return answer_conversation(self.pipeline, messages, waveforms, sampling)


def _descriptions(
    answers: Iterable[tuple[AudioWindow, Answer]], on_window: OnWindow
) -> Iterator[Description]:
    """The answers about the windows of each recording, as soon as it is complete."""
    of_recording: list[Answer] = []
    for item, answer in answers:
        of_recording.append(answer)
        on_window(item.window.end_seconds)
        if item.recording is not None:  # its last window
            yield Description(item.name, of_recording, item.recording.notes)
            of_recording = []

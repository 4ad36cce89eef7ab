"""Text about recordings: describe, session, chat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list, is_single
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.waveform import RecordingInfo
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.errors import OptionError
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.finite import raise_first, run_by_recording
from qwen_audio.inference.generation import GeneratedText
from qwen_audio.inference.options import Sampling
from qwen_audio.models.qwen2_audio.prompt import Message, audio_inputs

from .answer import Answer, Description
from .base import ModelBase
from .options import DescribeOptions, SessionOptions
from .session import AudioSession, answer_conversation, window_answer

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
    ) -> Description | list[Description]:
        """Describe each recording, or answer a question about it.

        Args:
            prompt: a question; "Describe the music:" by default. Text that contains `<|AUDIO|>` is
                used as it is, with its markers.
            stream: called with pieces of the answer as they are generated; one recording only.
            max_new_tokens, temperature, top_p, seed: see `Sampling`; greedy by default.
            sampling_rate: of arrays, in Hz.
            track, on_damage: of files; see `load_waveform`.
            window_seconds, hop_seconds: see `WindowConfig`.

        Returns:
            A `Description`: a str with an `Answer` for each window.

        Raises:
            AudioError: naming the recording that can't be decoded, or that overflows in this dtype.
            OptionError: for invalid options.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        window_config = WindowConfig(window_seconds, hop_seconds)
        load_options = LoadOptions(sampling_rate, track, on_damage)
        if stream is not None:
            if not is_single(audio):
                raise OptionError("stream= takes one recording at a time, not a list")
            session: Any = self.session(
                audio,
                sampling_rate=sampling_rate,
                track=track,
                on_damage=on_damage,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
            )
            return session.ask(
                prompt,
                stream=stream,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
        prompt_text = self.pipeline.tokenizer.render(prompt)
        inputs, single = as_input_list(audio)

        def generate(windows: Sequence[AudioWindow]) -> list[GeneratedText]:
            audio_rows = self.pipeline.encode_audio([window.log_mel for window in windows])
            return self.pipeline.generate(prompt_text, [[rows] for rows in audio_rows], sampling)

        answers: dict[int, list[Answer]] = {}
        recordings: dict[int, RecordingInfo] = {}
        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            self.pipeline.fetch_weights(None)
            texts = raise_first(run_by_recording(batch, generate))
            for item, text in zip(batch, texts, strict=True):
                answer = window_answer(text, item.window, self.dtype)
                answers.setdefault(item.recording_index, []).append(answer)
                recordings[item.recording_index] = item.recording
        results = [
            Description(recordings[clip].name, by_window, recordings[clip].notes)
            for clip, by_window in answers.items()
        ]
        return results[0] if single else results

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
        window_config = WindowConfig(window_seconds, hop_seconds)
        load_options = LoadOptions(sampling_rate, track, on_damage)
        rows_by_clip: dict[int, list[tuple[Window, torch.Tensor]]] = {}
        recordings: dict[int, RecordingInfo] = {}

        def encode(windows: Sequence[AudioWindow]) -> list[torch.Tensor]:
            return self.pipeline.encode_audio([window.log_mel for window in windows])

        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            audio_rows = raise_first(run_by_recording(batch, encode))
            for item, rows in zip(batch, audio_rows, strict=True):
                rows_by_clip.setdefault(item.recording_index, []).append((item.window, rows))
                recordings[item.recording_index] = item.recording
        results = [
            AudioSession(self.pipeline, recordings[clip].name, windows, recordings[clip].notes)
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
            AudioError: for audio that can't be decoded, or is longer than the encoder's 30 s.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        waveforms = [
            load_waveform(audio, sampling_rate=sampling_rate) for audio in audio_inputs(messages)
        ]
        return answer_conversation(self.pipeline, messages, waveforms, sampling)

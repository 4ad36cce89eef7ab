"""What is this? Words about recordings: describe, listen and ask, chat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.errors import OptionError
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.sampling import Sampling
from qwen_audio.models.qwen2_audio.prompt import Message, audio_parts

from .answer import Answer, Description
from .base import Opened
from .options import DescribeOptions, SessionOptions
from .session import AudioSession, answer_conversation, make_answer

__all__ = ["Describing"]


class Describing(Opened):
    """The verbs that give words."""

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
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> Description | list[Description]:
        """What is this? Text about each recording.

        Args:
            prompt: a question; "Describe the music:" unless given. Text that holds `<|AUDIO|>` is
                used as it is, markers and all.
            stream: called with pieces of the answer as they come (one recording at a time).
            max_new_tokens, temperature, top_p, seed: see `Sampling`; greedy by default.
            sampling_rate: of arrays, in Hz.
            window_seconds, hop_seconds: see `WindowConfig`.

        Returns:
            A `Description`: a str that also holds, per window, what the model was given.

        Raises:
            AudioError: naming the recording that can't be heard.
            OptionError: for options that make no sense.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        window_config = WindowConfig(window_seconds, hop_seconds)
        if stream is not None:
            if isinstance(audio, list | tuple):
                raise OptionError("stream= takes one recording at a time, not a list")
            heard = self.session(
                audio,
                sampling_rate=sampling_rate,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
            )
            return heard.ask(
                prompt,
                stream=stream,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
            )
        prompt_text = self.pipeline.prompts.render(prompt)
        inputs, single = as_input_list(audio)
        answers: dict[tuple[int, str], list[Answer]] = {}
        for batch in batched_windows(self.pipeline, inputs, sampling_rate, window_config):
            self.pipeline.fetch_weights(None)
            heard_batch = self.pipeline.encode_audio([piece.log_mel for piece in batch])
            clips = [self.pipeline.build_inputs(prompt_text, rows) for rows in heard_batch]
            said = self.pipeline.generate(clips, sampling)
            for piece, clip, new in zip(batch, clips, said, strict=True):
                answer = make_answer(self.pipeline, clip, new, piece.window)
                answers.setdefault((piece.recording_index, piece.recording.name), []).append(answer)
        results = [Description(name, of_clip) for (_, name), of_clip in answers.items()]
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
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> AudioSession | list[AudioSession]:
        """Hear a recording once, to ask many questions: returns a `AudioSession` (a list: a list).

        Raises:
            AudioError: naming the recording that can't be heard.
        """
        inputs, single = as_input_list(audio)
        window_config = WindowConfig(window_seconds, hop_seconds)
        heard: dict[tuple[int, str], list[tuple[Window, torch.Tensor]]] = {}
        for batch in batched_windows(self.pipeline, inputs, sampling_rate, window_config):
            rows_of = self.pipeline.encode_audio([piece.log_mel for piece in batch])
            for piece, rows in zip(batch, rows_of, strict=True):
                of_clip = heard.setdefault((piece.recording_index, piece.recording.name), [])
                of_clip.append((piece.window, rows))
        results = [
            AudioSession(self.pipeline, name, windows) for (_, name), windows in heard.items()
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
            OptionError: for a conversation that the template can't take.
            AudioError: for audio that can't be heard, or is longer than the encoder's 30 s.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        waveforms = [
            load_waveform(audio, sampling_rate=sampling_rate) for audio in audio_parts(messages)
        ]
        return answer_conversation(self.pipeline, messages, waveforms, sampling)

"""QwenAudio: describe, encode, activations, listen, chat: the whole line behind five verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import torch

from .answer import Answer, Description
from .audio import Waveform, Window, Windowing
from .batching import batched_pieces, open_inputs
from .compute import resolve_device, resolve_dtype
from .errors import OptionError
from .frames import Frames, WindowRows, assemble
from .generation import Sampling
from .inspection import Inspection, inspect_line
from .line import Line
from .listening import Listening, answer_conversation, make_answer
from .loading import AudioInput, load_waveform
from .options import (
    ActivationsOptions,
    DescribeOptions,
    EncodeOptions,
    HearOptions,
    InspectOptions,
    Many,
    Vectors,
)
from .pooling import PoolingName, SpanName, check_pooling, check_span, pool, select
from .prompt import Message, audio_parts
from .spec import Spec
from .tap import Geometry, Tap
from .weights import EMBEDDED, Checkpoint, Cost

__all__ = ["QwenAudio", "load"]


def load(
    model: str | Path = EMBEDDED,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    chat: bool | None = None,
) -> QwenAudio:
    """Open a checkpoint. No weights are read until a tap needs them.

    Args:
        model: "embedded", a folder, or a hub model such as "Qwen/Qwen2-Audio-7B-Instruct".
        device: where to compute; a GPU if there is one, else the CPU.
        dtype: of the arithmetic: "float32", "bfloat16" or "float16"; float32 on a CPU, the
            checkpoint's own on a GPU.
        revision: branch, tag or commit of a hub model.
        chat: whether questions go through the chat template; by default as the checkpoint was
            taught (base: plain, Instruct: chat).

    Raises:
        CheckpointError: if the checkpoint is missing or not exactly what its config says.
        OptionError: for a device or dtype that isn't there.
    """
    checkpoint = Checkpoint(model, revision)
    where = resolve_device(device)
    stored = getattr(checkpoint.config, "dtype", None) or torch.float32
    default = torch.float32 if where.type == "cpu" else stored
    return QwenAudio(Line(checkpoint, where, resolve_dtype(dtype, default), chat))


class QwenAudio:
    """One checkpoint's line. Made by `load`.

    Every method takes one input or a list of them, and gives one result or a list. An input is a
    path, "-" for standard input, bytes, a binary file object, a Waveform, or an array or tensor
    with `sampling_rate=`. Recordings longer than a window are heard window by window, all of it.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def name(self) -> str:
        """What the checkpoint was loaded as."""
        return self._line.checkpoint.name

    @property
    def geometry(self) -> Geometry:
        """The line's widths and depths."""
        return self._line.checkpoint.geometry

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Every tap, shallowest first."""
        return self.geometry.taps()

    def cost(self, tap: str | Tap | None) -> Cost:
        """Tensors, parameters and bytes of the checkpoint that a tap needs; None: for text."""
        return self._line.checkpoint.cost(None if tap is None else self.geometry.tap(tap))

    def spec(
        self,
        tap: str | Tap = "audio_tower",
        *,
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        window_seconds: float = Windowing.window_seconds,
        hop_seconds: float | None = None,
    ) -> Spec:
        """What decides the vectors that `encode` makes with the same options; raises as it does."""
        check_pooling(pooling)
        check_span(span, self.geometry.tap(tap))
        resolved, windowing = self.geometry.tap(tap), Windowing(window_seconds, hop_seconds)
        return Spec(
            model=self.name,
            revision=self._line.checkpoint.revision,
            tap=str(resolved),
            pooling=pooling,
            span=span,
            prompt=self._rendered([resolved], prompt),
            window_seconds=windowing.window_seconds,
            hop_seconds=windowing.hop,
            dtype=self._line.dtype_name,
        )

    @overload
    def describe(self, audio: AudioInput, **options: Unpack[DescribeOptions]) -> Description: ...
    @overload
    def describe(self, audio: Many, **options: Unpack[DescribeOptions]) -> list[Description]: ...
    def describe(
        self,
        audio: AudioInput | Many,
        *,
        prompt: str | None = None,
        stream: Callable[[str], None] | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        seed: int | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = Windowing.window_seconds,
        hop_seconds: float | None = None,
    ) -> Description | list[Description]:
        """What is this? Text about each recording.

        Args:
            prompt: a question; "Describe the music:" unless given. Text that holds `<|AUDIO|>` is
                used as it is, markers and all.
            stream: called with pieces of the answer as they come (one recording at a time).
            max_new_tokens, temperature, top_p, seed: see `Sampling`; greedy by default.
            sampling_rate: of arrays, in Hz.
            window_seconds, hop_seconds: see `Windowing`.

        Returns:
            A `Description`: a str that also holds, per window, what the model was given.

        Raises:
            AudioError: naming the recording that can't be heard.
            OptionError: for options that make no sense.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, seed)
        windowing = Windowing(window_seconds, hop_seconds)
        if stream is not None:
            if isinstance(audio, list | tuple):
                raise OptionError("stream= takes one recording at a time, not a list")
            heard = self.listen(
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
        rendered = self._line.prompts.render(prompt)
        waveforms, single = open_inputs(audio, sampling_rate)
        answers: dict[tuple[int, str], list[Answer]] = {}
        for batch in batched_pieces(self._line, waveforms, windowing):
            heard_batch = self._line.hear([piece.mel for piece in batch])
            clips = [self._line.positions(rendered, rows) for rows in heard_batch]
            said = self._line.say(clips, sampling)
            for piece, clip, new in zip(batch, clips, said, strict=True):
                answer = make_answer(self._line, clip, new, piece.window)
                answers.setdefault((piece.clip, piece.name), []).append(answer)
        results = [Description(name, of_clip) for (_, name), of_clip in answers.items()]
        return results[0] if single else results

    @overload
    def encode(self, audio: AudioInput, **options: Unpack[EncodeOptions]) -> Vectors: ...
    @overload
    def encode(self, audio: Many, **options: Unpack[EncodeOptions]) -> Any: ...
    def encode(
        self,
        audio: AudioInput | Many,
        *,
        tap: str | Tap = "audio_tower",
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = Windowing.window_seconds,
        hop_seconds: float | None = None,
    ) -> Vectors | list[Vectors]:
        """Vectors of one tap: the audio encoder's or the language model's view of a recording.

        Args:
            tap: where to read; see `taps`. Nothing right of it is read or computed.
            pooling: "mean", "max" or "last" over the rows of the span, in all windows; "none"
                keeps them.
            span: "audio"; at language model taps also "prompt" (the text), "last" (the position
                before the answer) or "all".
            prompt: at language model taps, what to ask; "Describe the music:" unless given.

        Returns:
            float32 NumPy arrays. Pooled: (width,) for one input, (inputs, width) for a list.
            With pooling "none": (rows, width), or a list of these.

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        resolved = self.geometry.tap(tap)
        check_pooling(pooling)
        check_span(span, resolved)
        waveforms, single = open_inputs(audio, sampling_rate)
        windowing = Windowing(window_seconds, hop_seconds)
        vectors = [
            pool(select(frames[resolved], span), pooling)
            for frames in self._frames(waveforms, [resolved], prompt, windowing)
        ]
        if single:
            return vectors[0]
        if pooling == "none":
            return vectors
        empty = np.zeros((0, self.geometry.width(resolved)), np.float32)
        return np.stack(vectors) if vectors else empty

    @overload
    def activations(
        self, audio: AudioInput, **options: Unpack[ActivationsOptions]
    ) -> dict[str, Frames]: ...
    @overload
    def activations(
        self, audio: Many, **options: Unpack[ActivationsOptions]
    ) -> list[dict[str, Frames]]: ...
    def activations(
        self,
        audio: AudioInput | Many,
        *,
        taps: Iterable[str | Tap],
        prompt: str | None = None,
        generate: int = 0,
        sampling_rate: int | None = None,
        window_seconds: float = Windowing.window_seconds,
        hop_seconds: float | None = None,
    ) -> dict[str, Frames] | list[dict[str, Frames]]:
        """The rows of any set of taps, in one forward pass that stops after the deepest.

        Args:
            taps: such as ["mel", "encoder.0", "lm.-1"]; the result has these keys.
            prompt: what to ask, for taps in the language model.
            generate: also answer, with up to so many tokens, and read their states as well (the
                span "generated"; greedy).

        Returns:
            A dict from tap, as it was written, to `Frames`; for a list a list of dicts.

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list of taps, such as [{taps!r}]")
        named = {tap if isinstance(tap, str) else str(tap): self.geometry.tap(tap) for tap in taps}
        if not named:
            raise OptionError("taps is empty: name at least one, such as 'audio_tower'")
        if not isinstance(generate, int) or generate < 0:
            raise OptionError(f"generate={generate!r}: use a whole number of tokens, 0 or more")
        if generate and not any(tap.in_language_model for tap in named.values()):
            raise OptionError(
                f"generate={generate}, but no tap is in the language model, where generated tokens "
                "have states: add lm.K or lm.norm"
            )
        continuation = Sampling(max_new_tokens=generate) if generate else None
        waveforms, single = open_inputs(audio, sampling_rate)
        windowing = Windowing(window_seconds, hop_seconds)
        results = [
            {text: frames[tap] for text, tap in named.items()}
            for frames in self._frames(
                waveforms, list(named.values()), prompt, windowing, continuation
            )
        ]
        return results[0] if single else results

    @overload
    def listen(self, audio: AudioInput, **options: Unpack[HearOptions]) -> Listening: ...
    @overload
    def listen(self, audio: Many, **options: Unpack[HearOptions]) -> list[Listening]: ...
    def listen(
        self,
        audio: AudioInput | Many,
        *,
        sampling_rate: int | None = None,
        window_seconds: float = Windowing.window_seconds,
        hop_seconds: float | None = None,
    ) -> Listening | list[Listening]:
        """Hear a recording once, to ask many questions: returns a `Listening` (a list: a list).

        Raises:
            AudioError: naming the recording that can't be heard.
        """
        waveforms, single = open_inputs(audio, sampling_rate)
        windowing = Windowing(window_seconds, hop_seconds)
        heard: dict[tuple[int, str], list[tuple[Window, torch.Tensor]]] = {}
        for batch in batched_pieces(self._line, waveforms, windowing):
            rows_of = self._line.hear([piece.mel for piece in batch])
            for piece, rows in zip(batch, rows_of, strict=True):
                heard.setdefault((piece.clip, piece.name), []).append((piece.window, rows))
        results = [Listening(self._line, name, of_clip) for (_, name), of_clip in heard.items()]
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
        return answer_conversation(self._line, messages, waveforms, sampling)

    @overload
    def inspect(self, audio: AudioInput, **options: Unpack[InspectOptions]) -> Inspection: ...
    @overload
    def inspect(self, audio: Many, **options: Unpack[InspectOptions]) -> list[Inspection]: ...
    def inspect(
        self,
        audio: AudioInput | Many,
        *,
        prompt: str | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = Windowing.window_seconds,
        hop_seconds: float | None = None,
    ) -> Inspection | list[Inspection]:
        """A clip's whole story on the line, without computing it: see `Inspection`."""
        waveforms, single = open_inputs(audio, sampling_rate)
        windowing = Windowing(window_seconds, hop_seconds)
        rendered = self._line.prompts.render(prompt)
        results = [inspect_line(self._line, w, windowing, rendered) for w in waveforms]
        return results[0] if single else results

    def _rendered(self, taps: Sequence[Tap], prompt: str | None) -> str | None:
        """The text that the language model is given, or None where no tap is in it."""
        if any(tap.in_language_model for tap in taps):
            return self._line.prompts.render(prompt)
        if prompt is not None:
            raise OptionError(
                f"prompt={prompt!r:.60} with {', '.join(map(str, taps))}: only the language model "
                "(lm.K, lm.norm) reads a prompt; leave it out or choose such a tap"
            )
        return None

    def _frames(
        self,
        waveforms: Iterable[Waveform],
        taps: Sequence[Tap],
        prompt: str | None,
        windowing: Windowing,
        continuation: Sampling | None = None,
    ) -> Iterator[dict[Tap, Frames]]:
        """Frames of every tap, recording after recording, each as soon as it is complete."""
        rendered = self._rendered(taps, prompt)
        held: list[tuple[Window, dict[Tap, WindowRows]]] = []
        current = 0
        for batch in batched_pieces(self._line, waveforms, windowing):
            states = self._line.states(batch, taps, rendered, continuation)
            for piece, state in zip(batch, states, strict=True):
                if piece.clip != current:
                    yield assemble(held, taps, self._line.dtype_name)
                    held, current = [], piece.clip
                held.append((piece.window, state))
        if held:
            yield assemble(held, taps, self._line.dtype_name)

    def __repr__(self) -> str:
        taps = " → ".join(str(tap) for tap in (self.taps[0], self.taps[-1]))
        return f"QwenAudio({self.name!r}, {taps}, {self._line.dtype_name} on {self._line.device})"

"""What does it hear? Vectors of any tap: encode, one after another or all at once; activations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.hidden_states import HiddenStates, assemble
from qwen_audio.inference.pooling import Pooling, PoolingName, SpanName, check_span, pooled_width
from qwen_audio.inference.reader import read
from qwen_audio.inference.reducers import rows_and_segments
from qwen_audio.inference.sampling import Sampling
from qwen_audio.models.tap import Tap

from .base import Opened
from .options import ActivationsOptions, EncodeManyOptions, EncodeOptions, Vectors
from .spec import EmbeddingSpec

__all__ = ["Encoding"]


class Encoding(Opened):
    """The verbs that give vectors."""

    def spec(
        self,
        tap: str | Tap = "audio_tower",
        *,
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> EmbeddingSpec:
        """What decides the vectors that `encode` makes with the same options; raises as it does."""
        resolved, window_config = (
            self.dimensions.tap(tap),
            WindowConfig(window_seconds, hop_seconds),
        )
        Pooling(pooling, span)
        check_span(span, resolved)
        return EmbeddingSpec(
            model=self.name,
            revision=self.pipeline.checkpoint.revision,
            tap=str(resolved),
            pooling=pooling,
            span=span,
            prompt=self._rendered([resolved], prompt),
            window_seconds=window_config.window_seconds,
            hop_seconds=window_config.resolved_hop_seconds,
            dtype=self.pipeline.dtype_name,
        )

    @overload
    def encode(self, audio: AudioInput, **options: Unpack[EncodeOptions]) -> Vectors: ...
    @overload
    def encode(self, audio: AudioInputs, **options: Unpack[EncodeOptions]) -> Any: ...
    @overload
    def encode(
        self, audio: AudioInput | AudioInputs, **options: Unpack[EncodeManyOptions]
    ) -> dict[str, Any]: ...
    def encode(
        self,
        audio: AudioInput | AudioInputs,
        *,
        tap: str | Tap | Sequence[str | Tap] = "audio_tower",
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> Any:
        """Vectors of a tap: the audio encoder's or the language model's view of a recording.

        Args:
            tap: where to read; see `taps`. Nothing right of it is read or computed. Several, in a
                list, are read in one pass.
            pooling: "mean", "max", "mean+std" (twice as wide) or "last" over the rows of the span,
                in all windows; "none" keeps them.
            span: "audio"; at language model taps also "prompt" (the text), "last" (the position
                before the answer) or "all".
            prompt: at language model taps, what to ask; "Describe the music:" unless given.

        Returns:
            float32 NumPy arrays. Pooled: (width,) for one input, (inputs, width) for a list.
            With pooling "none": (rows, width), or a list of these. For several taps a dict from
            tap, as it was written, to these.

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        inputs, single = as_input_list(audio)
        vectors: list[Any] = list(
            self.encode_each(
                inputs,
                tap=tap,
                pooling=pooling,
                span=span,
                prompt=prompt,
                sampling_rate=sampling_rate,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
            )
        )
        if single:
            return vectors[0]
        if isinstance(tap, str | Tap):
            return self._stacked(vectors, tap, pooling)
        return {
            text: self._stacked([of[text] for of in vectors], resolved, pooling)
            for text, resolved in self._named(tap).items()
        }

    def encode_each(
        self,
        audio: Iterable[Any],
        *,
        errors: Literal["raise", "yield"] = "raise",
        tap: str | Tap | Sequence[str | Tap] = "audio_tower",
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> Iterator[Any]:
        """`encode` for any number of recordings: vectors in order, as soon as they are there.

        Decoding runs ahead in threads, clips share passes, and what has been handed out is
        forgotten: memory does not grow with their number.

        Args:
            errors: "yield" puts an AudioError in the place of a recording that can't be heard, and
                goes on; "raise" raises it.

        Yields:
            What `encode` gives for the recording alone.

        Raises:
            AudioError, TapError, OptionError: as `encode` does.
        """
        if isinstance(audio, str | bytes | os.PathLike):
            raise AudioError(
                f"{audio!r:.80} is one recording: encode_each takes several, such as a list; "
                "encode takes one"
            )
        single = isinstance(tap, str | Tap)
        named = self._named([tap] if isinstance(tap, str | Tap) else tap)
        how = Pooling(pooling, span)
        for resolved in named.values():
            check_span(span, resolved)
        if errors not in ("raise", "yield"):
            raise OptionError(f"errors={errors!r}: use 'raise' or 'yield'")
        prompt_text = self._rendered(list(named.values()), prompt)
        window_config = WindowConfig(window_seconds, hop_seconds)

        def vectors() -> Iterator[Any]:
            for reading in read(  # which nothing else holds, so that an error ends its threads
                self.pipeline,
                audio,
                list(named.values()),
                how.window,
                prompt_text=prompt_text,
                window_config=window_config,
                sampling_rate=sampling_rate,
            ):
                if isinstance(reading, AudioError):
                    if errors == "raise":
                        raise reading
                    yield reading
                    continue
                pooled = {
                    text: how.recording([kept[resolved] for kept in reading.kept])
                    for text, resolved in named.items()
                }
                yield next(iter(pooled.values())) if single else pooled

        return vectors()

    @overload
    def activations(
        self, audio: AudioInput, **options: Unpack[ActivationsOptions]
    ) -> dict[str, HiddenStates]: ...
    @overload
    def activations(
        self, audio: AudioInputs, **options: Unpack[ActivationsOptions]
    ) -> list[dict[str, HiddenStates]]: ...
    def activations(
        self,
        audio: AudioInput | AudioInputs,
        *,
        taps: Iterable[str | Tap],
        prompt: str | None = None,
        generate: int = 0,
        sampling_rate: int | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> dict[str, HiddenStates] | list[dict[str, HiddenStates]]:
        """The rows of any set of taps, in one forward pass that stops after the deepest.

        Args:
            taps: such as ["mel", "encoder.0", "lm.-1"]; the result has these keys.
            prompt: what to ask, for taps in the language model.
            generate: also answer, with up to so many tokens, and read their states as well (the
                span "generated"; greedy).

        Returns:
            A dict from tap, as it was written, to `HiddenStates`; for a list a list of dicts.

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list of taps, such as [{taps!r}]")
        named = self._named(taps)
        if not isinstance(generate, int) or generate < 0:
            raise OptionError(f"generate={generate!r}: use a whole number of tokens, 0 or more")
        if generate and not any(tap.in_language_model for tap in named.values()):
            raise OptionError(
                f"generate={generate}, but no tap is in the language model, where generated tokens "
                "have states: add lm.K or lm.norm"
            )
        continuation = Sampling(max_new_tokens=generate) if generate else None
        inputs, single = as_input_list(audio)
        results = []
        for reading in read(
            self.pipeline,
            inputs,
            list(named.values()),
            rows_and_segments,
            prompt_text=self._rendered(list(named.values()), prompt),
            window_config=WindowConfig(window_seconds, hop_seconds),
            sampling_rate=sampling_rate,
            continuation=continuation,
        ):
            if isinstance(reading, AudioError):
                raise reading
            frames = assemble(reading.windows, reading.kept, named.values(), self.dtype)
            results.append({text: frames[tap] for text, tap in named.items()})
        return results[0] if single else results

    def _stacked(self, vectors: list[Any], tap: str | Tap, pooling: PoolingName) -> Any:
        if pooling == "none":
            return vectors
        width = pooled_width(pooling, self.dimensions.width(self.dimensions.tap(tap)))
        empty = np.zeros((0, width), np.float32)
        return np.stack(vectors) if vectors else empty

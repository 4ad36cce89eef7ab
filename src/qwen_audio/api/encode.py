"""Vectors and hidden states of any tap: encode, encode_each, activations, spec."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.unwrap import is_wrapped
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates, concatenate_windows
from qwen_audio.inference.options import PoolingName, Sampling, SpanName, check_span
from qwen_audio.inference.pooling import Pooling, pooled_width
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.inference.reducers import rows_and_segments
from qwen_audio.models.tap import Tap

from .base import ModelBase
from .options import ActivationsOptions, EncodeManyOptions, EncodeOptions, Vectors
from .spec import EmbeddingSpec

__all__ = ["EncodeMixin"]


class EncodeMixin(ModelBase):
    """Methods that return vectors and hidden states."""

    def spec(
        self,
        tap: str | Tap = "audio_tower",
        *,
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        track: int | None = None,
    ) -> EmbeddingSpec:
        """The embedding spec of `encode` with the same options; raises as it does."""
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
            prompt=self._prompt_text([resolved], prompt),
            window_seconds=window_config.window_seconds,
            hop_seconds=window_config.resolved_hop_seconds,
            dtype=self.pipeline.dtype_name,
            track=LoadOptions(track=track).track,
            adapter=self.pipeline.checkpoint.adapter_hash,
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
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> Any:
        """Embeddings: the rows of a tap of the audio encoder or the language model, pooled.

        Args:
            tap: see `taps`. Stages after it are neither read nor computed. Several, in a list,
                share one pass.
            pooling: "mean", "max", "mean+std" (twice as wide) or "last" over the rows of the span,
                in all windows; "none" returns the rows.
            span: "audio"; at language model taps also "prompt" (the text), "last" (the position
                before the answer) or "all".
            prompt: for taps in the language model; "Describe the music:" by default.
            sampling_rate: of arrays, in Hz.
            track, on_damage: of files; see `load_waveform`.

        Returns:
            float32 NumPy arrays. Pooled: (width,) for one input, (inputs, width) for a list.
            With pooling "none": (rows, width), or a list of these. For several taps a dict from
            tap, as given, to these.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
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
                track=track,
                on_damage=on_damage,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
            )
        )
        if single:
            return vectors[0]
        if isinstance(tap, str | Tap):
            return self._stack(vectors, tap, pooling)
        return {
            name: self._stack([by_tap[name] for by_tap in vectors], resolved, pooling)
            for name, resolved in self._resolve_taps(tap).items()
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
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> Iterator[Any]:
        """`encode` for any number of recordings: vectors in order, each as soon as it is computed.

        Decoding runs ahead in threads, short clips share passes, and results are not kept: memory
        does not grow with the number of recordings.

        Args:
            errors: "yield" puts an AudioError in place of a recording that can't be decoded and
                continues; "raise" raises it.

        Yields:
            What `encode` returns for the recording alone.

        Raises:
            AudioError, TapError, OptionError: as `encode` does.
        """
        if isinstance(audio, str | bytes | os.PathLike | Waveform) or is_wrapped(audio):
            raise AudioError(
                f"{audio!r:.80} is one recording: encode_each takes several, such as a list; "
                "encode takes one"
            )
        single = isinstance(tap, str | Tap)
        resolved_taps = self._resolve_taps([tap] if isinstance(tap, str | Tap) else tap)
        pool = Pooling(pooling, span)
        for resolved in resolved_taps.values():
            check_span(span, resolved)
        if errors not in ("raise", "yield"):
            raise OptionError(f"errors={errors!r}: use 'raise' or 'yield'")
        prompt_text = self._prompt_text(list(resolved_taps.values()), prompt)
        window_config = WindowConfig(window_seconds, hop_seconds)
        load_options = LoadOptions(sampling_rate, track, on_damage)

        def vectors() -> Iterator[Any]:
            # Not assigned to a name: an error then ends the iterator, and with it its threads.
            for captured in capture_recordings(
                self.pipeline,
                audio,
                list(resolved_taps.values()),
                pool.pool_window,
                prompt_text=prompt_text,
                window_config=window_config,
                load_options=load_options,
            ):
                if isinstance(captured, AudioError):
                    if errors == "raise":
                        raise captured
                    yield captured
                    continue
                pooled = {
                    name: pool.combine([window[resolved] for window in captured.outputs])
                    for name, resolved in resolved_taps.items()
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
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> dict[str, HiddenStates] | list[dict[str, HiddenStates]]:
        """The hidden states of any set of taps, in one forward pass that stops at the deepest.

        Args:
            taps: such as ["mel", "encoder.0", "lm.-1"]; the result has these keys.
            prompt: for taps in the language model; "Describe the music:" by default.
            generate: also generate up to so many tokens (greedily) and return their hidden states,
                as the span "generated". Fewer where the answer, or the model's context, ends.

        Returns:
            A dict from tap, as given, to `HiddenStates`; for a list a list of dicts.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list of taps, such as [{taps!r}]")
        resolved_taps = self._resolve_taps(taps)
        generate = whole_number_option("generate", generate, 0)
        if generate and not any(tap.in_language_model for tap in resolved_taps.values()):
            raise OptionError(
                f"generate={generate}, but no tap is in the language model, where generated tokens "
                "have states: add lm.K or lm.norm"
            )
        continuation = Sampling(max_new_tokens=generate) if generate else None
        inputs, single = as_input_list(audio)
        results = []
        for captured in capture_recordings(
            self.pipeline,
            inputs,
            list(resolved_taps.values()),
            rows_and_segments,
            prompt_text=self._prompt_text(list(resolved_taps.values()), prompt),
            window_config=WindowConfig(window_seconds, hop_seconds),
            load_options=LoadOptions(sampling_rate, track, on_damage),
            continuation=continuation,
        ):
            if isinstance(captured, AudioError):
                raise captured
            hidden_states = concatenate_windows(
                captured.windows, captured.outputs, resolved_taps.values(), self.dtype
            )
            results.append({name: hidden_states[tap] for name, tap in resolved_taps.items()})
        return results[0] if single else results

    def _stack(self, vectors: list[Any], tap: str | Tap, pooling: PoolingName) -> Any:
        if pooling == "none":
            return vectors
        width = pooled_width(pooling, self.dimensions.width(self.dimensions.tap(tap)))
        empty = np.zeros((0, width), np.float32)
        return np.stack(vectors) if vectors else empty

"""Embeddings: encode, encode_each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Literal, Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list, check_several
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.interventions import keeps_edits
from qwen_audio.inference.options import (
    PoolingName,
    PoolingUnit,
    ReturnTensors,
    SpanName,
    check_pooling_unit,
    check_return_tensors,
    check_span,
)
from qwen_audio.inference.pooling import Pooling, pooled_width
from qwen_audio.inference.progress_bars import OnProgress, OnWindow, shows_progress, with_progress
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.models.tap import Tap

from .base import ModelBase
from .embeddings import Embeddings
from .options import (
    EncodeOptions,
    ManyTapsOptions,
    ManyTapsVectorOptions,
    OneTapOptions,
    OneTapVectorOptions,
)
from .recording_embeddings import recording_embeddings, stacked

__all__ = ["EncodeMixin"]


class EncodeMixin(ModelBase):
    """Methods that return embeddings."""

    @overload
    def encode(self, audio: AudioInput, **options: Unpack[OneTapOptions]) -> Embeddings: ...
    @overload
    def encode(
        self, audio: AudioInput, **options: Unpack[ManyTapsOptions]
    ) -> dict[str, Embeddings]: ...
    @overload
    def encode(self, audio: AudioInputs, **options: Unpack[OneTapVectorOptions]) -> Embeddings: ...
    @overload
    def encode(self, audio: AudioInputs, **options: Unpack[OneTapOptions]) -> list[Embeddings]: ...
    @overload
    def encode(
        self, audio: AudioInputs, **options: Unpack[ManyTapsVectorOptions]
    ) -> dict[str, Embeddings]: ...
    @overload
    def encode(
        self, audio: AudioInputs, **options: Unpack[ManyTapsOptions]
    ) -> dict[str, list[Embeddings]]: ...
    @overload
    def encode(
        self, audio: AudioInput, *, return_tensors: Literal["pt"], **options: Unpack[OneTapOptions]
    ) -> torch.Tensor: ...
    @overload
    def encode(
        self,
        audio: AudioInput,
        *,
        return_tensors: Literal["pt"],
        **options: Unpack[ManyTapsOptions],
    ) -> dict[str, torch.Tensor]: ...
    @overload
    def encode(
        self,
        audio: AudioInputs,
        *,
        return_tensors: Literal["pt"],
        **options: Unpack[OneTapVectorOptions],
    ) -> torch.Tensor: ...
    @overload
    def encode(
        self, audio: AudioInputs, *, return_tensors: Literal["pt"], **options: Unpack[OneTapOptions]
    ) -> list[torch.Tensor]: ...
    @overload
    def encode(
        self,
        audio: AudioInputs,
        *,
        return_tensors: Literal["pt"],
        **options: Unpack[ManyTapsVectorOptions],
    ) -> dict[str, torch.Tensor]: ...
    @overload
    def encode(
        self,
        audio: AudioInputs,
        *,
        return_tensors: Literal["pt"],
        **options: Unpack[ManyTapsOptions],
    ) -> dict[str, list[torch.Tensor]]: ...
    def encode(
        self,
        audio: AudioInput | AudioInputs,
        *,
        tap: str | Tap | Sequence[str | Tap] = "audio_tower",
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        per: PoolingUnit = "recording",
        prompt: str | None = None,
        return_tensors: ReturnTensors = "np",
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        progress: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Embeddings: the rows of a tap of the audio encoder or the language model, pooled.

        Args:
            tap: see `taps`. Stages after it are neither read nor computed. Several, in a list,
                share one pass.
            pooling: "mean", "max", "mean+std" (twice as wide) or "last" over the rows of the span;
                "none" returns the rows.
            span: "audio"; at language model taps also "prompt" (the text), "last" (the position
                before the answer) or "all".
            per: "recording" pools all windows of a recording to one vector, "window" each window.
            prompt: for taps in the language model; "Describe the music:" by default.
            return_tensors: "np" for `Embeddings`, float32 NumPy arrays that know the recording,
                window and time of each row; "pt" for tensors on the model's device, not copied
                where they are unpooled (then in the model's dtype).
            sampling_rate, track, on_damage: see `load_waveform`.
            window_seconds, hop_seconds: see `AudioModel`; the last window may be very short.
            progress: show a bar for several recordings; by default in notebooks only.
            on_progress: called instead after every window and recording; see `OnProgress`.

        Returns:
            One vector a recording: shape (width,) for one input, (inputs, width) for a list. By
            window or unpooled: (windows or rows, width), or a list of these. For several taps a
            dict from tap, as given, to these.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        inputs, single = as_input_list(audio)
        results: list[Any] = list(
            self.encode_each(
                inputs,
                tap=tap,
                pooling=pooling,
                span=span,
                per=per,
                prompt=prompt,
                return_tensors=return_tensors,
                sampling_rate=sampling_rate,
                track=track,
                on_damage=on_damage,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
                progress=False if len(inputs) < 2 and progress is None else progress,
                on_progress=on_progress,
            )
        )
        if single:
            return results[0]

        def stack(parts: list[Any], name: str) -> Any:
            if pooling == "none" or per == "window":  # of any number of rows each
                return parts
            width = pooled_width(pooling, self.dimensions.width(self.dimensions.tap(name)))
            return stacked(
                parts, width, self.spec(name, pooling=pooling, span=span), return_tensors
            )

        if isinstance(tap, str | Tap):
            return stack(results, str(tap))
        return {name: stack([r[name] for r in results], name) for name in map(str, tap)}

    @overload
    def encode_each(
        self,
        audio: Iterable[Any],
        *,
        errors: Literal["raise"] = ...,
        **options: Unpack[OneTapOptions],
    ) -> Iterator[Embeddings]: ...
    @overload
    def encode_each(
        self, audio: Iterable[Any], *, errors: Literal["yield"], **options: Unpack[OneTapOptions]
    ) -> Iterator[Embeddings | AudioError]: ...
    @overload
    def encode_each(
        self,
        audio: Iterable[Any],
        *,
        errors: Literal["raise"] = ...,
        **options: Unpack[ManyTapsOptions],
    ) -> Iterator[dict[str, Embeddings]]: ...
    @overload
    def encode_each(
        self, audio: Iterable[Any], *, errors: Literal["yield"], **options: Unpack[ManyTapsOptions]
    ) -> Iterator[dict[str, Embeddings] | AudioError]: ...
    @overload
    def encode_each(
        self,
        audio: Iterable[Any],
        *,
        errors: Literal["raise", "yield"] = ...,
        return_tensors: ReturnTensors,
        tap: Any = ...,
        pooling: PoolingName = ...,
        per: PoolingUnit = ...,
        **options: Unpack[EncodeOptions],
    ) -> Iterator[Any]: ...
    @keeps_edits
    def encode_each(
        self,
        audio: Iterable[Any],
        *,
        errors: Literal["raise", "yield"] = "raise",
        tap: str | Tap | Sequence[str | Tap] = "audio_tower",
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        per: PoolingUnit = "recording",
        prompt: str | None = None,
        return_tensors: ReturnTensors = "np",
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        progress: bool | None = False,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Any]:
        """`encode` for any number of recordings: vectors in order, each as soon as it is computed.

        Decoding runs ahead in threads, short clips share passes, and results are not kept: memory
        does not grow with the number of recordings.

        Args:
            errors: "yield" puts an AudioError in place of a recording that can't be decoded and
                continues; "raise" raises it.
            progress, on_progress: as in `encode`; without a bar by default.

        Yields:
            What `encode` returns for the recording alone.

        Raises:
            AudioError, TapError, OptionError: as `encode` does.
        """
        check_several(audio, "encode_each takes several, such as a list; encode takes one")
        shown, single = shows_progress(progress), isinstance(tap, str | Tap)
        resolved_taps = self._resolve_taps([tap] if isinstance(tap, str | Tap) else tap)
        check_return_tensors(return_tensors)
        check_pooling_unit(per, pooling)
        pool = Pooling(pooling, span, self.pipeline.device if return_tensors == "pt" else None)
        for resolved in resolved_taps.values():
            check_span(span, resolved)
        if errors not in ("raise", "yield"):
            raise OptionError(f"errors={errors!r}: use 'raise' or 'yield'")
        prompt_text = self._prompt_text(list(resolved_taps.values()), prompt)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        load_options = LoadOptions(sampling_rate, track, on_damage)
        specs = {
            resolved: self._spec(resolved, pool, prompt_text, window_config, track)
            for resolved in resolved_taps.values()
        }

        def vectors(on_window: OnWindow) -> Iterator[Any]:
            # Not assigned to a name: an error then ends the iterator, and with it its threads.
            for captured in capture_recordings(
                self.pipeline,
                audio,
                list(resolved_taps.values()),
                pool.pool_window,
                prompt_text=prompt_text,
                window_config=window_config,
                load_options=load_options,
                on_window=on_window,
            ):
                if isinstance(captured, AudioError):
                    if errors == "raise":
                        raise captured
                    yield captured
                    continue
                times, texts = self.pipeline.row_times, self._token_texts
                pooled = {
                    name: recording_embeddings(captured, pool, specs[tap], tap, times, per, texts)
                    for name, tap in resolved_taps.items()
                }
                yield next(iter(pooled.values())) if single else pooled

        total = len(audio) if isinstance(audio, Sized) else None
        return with_progress(vectors, shown, total, on_progress=on_progress)

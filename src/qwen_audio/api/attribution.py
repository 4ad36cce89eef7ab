"""What answers depend on: attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Unpack, get_args, overload

import numpy as np

from qwen_audio.analysis.attention import AttentionWeights
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import SampledWindow
from qwen_audio.errors import AudioError, OptionError, whole_number_option
from qwen_audio.inference.attention_weights import (
    QuerySpan,
    WindowAttention,
    attention_weights,
)
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.finite import raise_first, run_by_recording
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.spans import index_of_spans, spans_and_times
from qwen_audio.models.tap import Stage, Tap

from .base import ModelBase
from .options import AttentionOptions

__all__ = ["AttributionMixin", "check_single_window"]

_SHORTER = "cut it, or set window_seconds (up to what the model takes)"


class AttributionMixin(ModelBase):
    """Methods that say what an answer depends on."""

    @overload
    def attention(
        self,
        audio: AudioInput,
        prompt: str | None = None,
        **options: Unpack[AttentionOptions],
    ) -> AttentionWeights: ...
    @overload
    def attention(
        self,
        audio: AudioInputs,
        prompt: str | None = None,
        **options: Unpack[AttentionOptions],
    ) -> list[AttentionWeights]: ...
    def attention(
        self,
        audio: AudioInput | AudioInputs,
        prompt: str | None = None,
        *,
        levels: Iterable[int | str | Tap] | None = None,
        heads: Sequence[int] | None = None,
        span: QuerySpan = "last",
        generate: int = 0,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
    ) -> AttentionWeights | list[AttentionWeights]:
        """Attention weights of the language model: see `AttentionWeights`.

        They are recomputed from the queries and keys of one pass, for the levels, heads and
        queries that are asked for. Attention is within a window, so recordings are of one.

        Args:
            prompt: "Describe the music:" by default.
            levels: k for the attention of the layer before `lm.k`: numbers from 1 on, or taps; all
                by default. Negative ones count from the last.
            heads: numbers of heads, from 0 on; all by default.
            span: the positions whose attention it is: "last" (before the answer), "prompt",
                "audio", "generated" or "all".
            generate: also generate up to so many tokens (greedily), as the span "generated".

        Raises:
            AudioError: for audio that can't be decoded, or is longer than a window.
            TapError, OptionError: for invalid options.
        """
        numbers = self._attention_levels(levels)
        chosen = self._attention_heads(heads)
        generate = whole_number_option("generate", generate, 0)
        check_query_span(span, generate)
        inputs, single = as_input_list(audio)
        window_config = self.pipeline.window_config(window_seconds)
        prompt_text = self.pipeline.tokenizer.render(prompt)
        read = partial(
            attention_weights,
            self.pipeline,
            prompt_text=prompt_text,
            levels=numbers,
            heads=None if heads is None else chosen,
            span=span,
            continuation=Sampling(max_new_tokens=generate) if generate else None,
        )
        load_options = LoadOptions(sampling_rate, track, on_damage)
        results = []
        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            for item in batch:
                check_single_window(item, "attention", window_seconds, _SHORTER)
            windows = raise_first(run_by_recording(batch, read))
            for item, window in zip(batch, windows, strict=True):
                results.append(self._attention(item, window, prompt_text, numbers, chosen))
        return results[0] if single else results

    def _attention(
        self,
        item: AudioWindow,
        window: WindowAttention,
        prompt_text: str,
        levels: tuple[int, ...],
        heads: tuple[int, ...],
    ) -> AttentionWeights:
        row_times = self.dimensions.times(Tap(Stage.LM, 0))
        spans, seconds = spans_and_times([(item.window, window.segments)], row_times)
        tokens = self._token_texts(window.token_ids)
        return AttentionWeights(
            item.name,
            prompt_text,
            levels,
            heads,
            window.weights,
            np.array(window.rows),
            index_of_spans(item.name, spans, seconds, [item.window], row_times, tokens),
            self.dtype,
            self.pipeline.all_edits,
        )

    def _attention_levels(self, levels: Iterable[int | str | Tap] | None) -> tuple[int, ...]:
        """Numbers of layers, counted from 1, in order and each once."""
        last = self.dimensions.lm_layers
        if levels is None:
            return tuple(range(1, last + 1))
        if isinstance(levels, int | str | Tap) or not isinstance(levels, Iterable):
            raise OptionError(f"levels={levels!r}: give a list, such as [{levels!r}]")
        numbers = {self._attention_level(level) for level in levels}
        if not numbers:
            raise OptionError("levels is empty: name at least one, such as 1")
        return tuple(sorted(numbers))

    def _attention_level(self, level: Any) -> int:
        last = self.dimensions.lm_layers
        if isinstance(level, str | Tap):
            tap = self.dimensions.tap(level)
            number = tap.layer if tap.stage is Stage.LM and tap.layer is not None else 0
        else:
            number = whole_number_option("level", level, -last, last)
            number += last + 1 if number < 0 else 0
        if not number:
            raise OptionError(
                f"level {level}: attention weights are of lm.1 to lm.{last}, the layers of the "
                f"language model: use a number from 1 to {last}"
            )
        return number

    def _attention_heads(self, heads: Sequence[int] | None) -> tuple[int, ...]:
        count = self.pipeline.checkpoint.family.sizes.lm_heads
        if heads is None:
            return tuple(range(count))
        if isinstance(heads, int | str):
            raise OptionError(f"heads={heads!r}: give a list, such as [{heads!r}]")
        chosen = sorted({whole_number_option("head", head, 0, count - 1) for head in heads})
        if not chosen:
            raise OptionError(f"heads is empty: name at least one, from 0 to {count - 1}")
        return tuple(chosen)


def check_query_span(span: str, generate: int) -> None:
    """Raises OptionError for an unknown span, or one of tokens that aren't generated."""
    if span not in get_args(QuerySpan):
        raise OptionError(f"span={span!r}: use one of {', '.join(get_args(QuerySpan))}")
    if span == "generated" and not generate:
        raise OptionError("span='generated', but generate=0: say how many tokens to generate")
    if generate and span not in ("generated", "all"):
        raise OptionError(
            f"generate={generate} has no effect on span={span!r}: use span='generated' or 'all'"
        )


def check_single_window(
    item: AudioWindow | SampledWindow, method: str, window_seconds: float, advice: str
) -> None:
    """Raises AudioError for a window of a recording that has several."""
    if item.recording is None or item.window.start_seconds > 0:
        raise AudioError(
            f"{item.name} is longer than a window of {window_seconds:g} s, and {method} is of one: "
            f"{advice}"
        )

"""Hidden states of any set of taps: activations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, Unpack, overload

import torch

from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates, concatenate_windows
from qwen_audio.inference.interventions import gradients_from
from qwen_audio.inference.options import ReturnTensors, Sampling, check_return_tensors
from qwen_audio.inference.pooling import Pooling
from qwen_audio.inference.progress_bars import shows_progress, with_progress
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.inference.reducers import rows_and_segments, rows_as_computed
from qwen_audio.models.tap import Tap

from .base import ModelBase
from .options import ActivationsOptions

__all__ = ["ActivationsMixin"]


class ActivationsMixin(ModelBase):
    """The method that returns hidden states."""

    @overload
    def activations(
        self, audio: AudioInput, **options: Unpack[ActivationsOptions]
    ) -> dict[str, HiddenStates]: ...
    @overload
    def activations(
        self, audio: AudioInputs, **options: Unpack[ActivationsOptions]
    ) -> list[dict[str, HiddenStates]]: ...
    @overload
    def activations(
        self,
        audio: AudioInput,
        *,
        return_tensors: Literal["pt"],
        **options: Unpack[ActivationsOptions],
    ) -> dict[str, HiddenStates[torch.Tensor]]: ...
    @overload
    def activations(
        self,
        audio: AudioInputs,
        *,
        return_tensors: Literal["pt"],
        **options: Unpack[ActivationsOptions],
    ) -> list[dict[str, HiddenStates[torch.Tensor]]]: ...
    def activations(
        self,
        audio: AudioInput | AudioInputs,
        *,
        taps: Iterable[str | Tap],
        prompt: str | None = None,
        generate: int = 0,
        return_tensors: ReturnTensors = "np",
        requires_grad: bool = False,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        progress: bool | None = None,
    ) -> Any:
        """The hidden states of any set of taps, in one forward pass that stops at the deepest.

        Args:
            taps: such as ["mel", "encoder.0", "lm.-1"]; the result has these keys.
            prompt: for taps in the language model; "Describe the music:" by default.
            generate: also generate up to so many tokens (greedily) and return their hidden states,
                as the span "generated". Fewer where the answer, or the model's context, ends.
            return_tensors: "pt" for tensors in `HiddenStates.data`: on the model's device, in its
                dtype, and not copied where a recording is one window.
            requires_grad: record operations, so that `torch.autograd.grad`, or `backward`, gives
                gradients: the shallowest tap's data is a leaf, those of deeper taps depend on it,
                and weights are frozen. With return_tensors="pt", of recordings of one window, and
                of weights that are in memory and not quantised.
            progress: show a bar for several recordings; by default in notebooks only.

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
        check_return_tensors(return_tensors)
        leaf = min(resolved_taps.values())
        if requires_grad:
            self._check_gradients(max(resolved_taps.values()), return_tensors, generate)
        continuation = Sampling(max_new_tokens=generate) if generate else None
        inputs, single = as_input_list(audio)
        shown = shows_progress(False if len(inputs) < 2 and progress is None else progress)
        prompt_text = self._prompt_text(list(resolved_taps.values()), prompt)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        specs = {
            tap: self._spec(tap, Pooling("none", "all"), prompt_text, window_config, track)
            for tap in resolved_taps.values()
        }
        results = []
        recorded = gradients_from(self.pipeline.modules, leaf) if requires_grad else nullcontext()
        recordings = partial(
            capture_recordings,
            self.pipeline,
            inputs,
            list(specs),
            rows_as_computed if return_tensors == "pt" else rows_and_segments,
            prompt_text=prompt_text,
            window_config=window_config,
            load_options=LoadOptions(sampling_rate, track, on_damage),
            continuation=continuation,
        )
        with recorded:
            for captured in with_progress(recordings, shown, len(inputs)):
                if isinstance(captured, AudioError):
                    raise captured
                if requires_grad and len(captured.windows) > 1:
                    raise OptionError(
                        f"requires_grad=True, but {captured.recording.name} is "
                        f"{len(captured.windows)} windows, computed apart: cut it to one"
                    )
                token_texts = [self._token_texts(ids) for ids in captured.token_ids]
                hidden_states = concatenate_windows(
                    captured.windows,
                    captured.outputs,
                    specs,
                    self.pipeline.row_times,
                    name=captured.recording.name,
                    tokens=tuple(itertools.chain.from_iterable(token_texts)),
                )
                results.append({name: hidden_states[tap] for name, tap in resolved_taps.items()})
        return results[0] if single else results

    def _check_gradients(self, deepest: Tap, return_tensors: str, generate: int) -> None:
        """Raises OptionError where there can't be any."""
        if return_tensors != "pt":
            raise OptionError("requires_grad=True needs return_tensors='pt': arrays have none")
        if generate:
            raise OptionError(
                f"requires_grad=True with generate={generate}: generated tokens have no gradient; "
                "leave one out"
            )
        if self.quantization is not None:
            raise OptionError(
                f"requires_grad=True, but {self.name} is quantised ({self.quantization}), and its "
                "products have no gradient: load it without quantize="
            )
        if not self.pipeline.holds_weights(deepest):
            raise OptionError(
                f"requires_grad=True, but the layers up to {deepest} don't fit in memory, and "
                "those that are streamed are gone when gradients are computed: give more "
                "max_memory, or a shallower tap"
            )

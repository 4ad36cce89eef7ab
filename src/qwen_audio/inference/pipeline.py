"""One checkpoint's pipeline for batches of windows: log-mel, encoder, language model, text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.audio.log_mel import AudioWindow, LogMel, compute_log_mel
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.qwen2_audio.prompt import PromptTokenizer
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.download import ProgressCallback
from qwen_audio.weights.module_store import ModuleStore

from .cost import CostEstimate, check_memory, estimate_cost, non_weight_bytes, process_bytes
from .decoder import DecoderInput, LanguageModel
from .encoder import AudioEncoder
from .generation import CachedContext, GeneratedText, TextStream, generate_tokens, generated_text
from .options import Sampling
from .reducers import CapturedWindow, RowReducer, all_rows, last_row

__all__ = ["Pipeline"]

_PROJECTOR, _LM_NORM = Tap(Stage.PROJECTOR), Tap(Stage.LM_NORM)

T = TypeVar("T")


class Pipeline:
    """Checkpoint, encoder, language model and tokenizer, on one device in one dtype.

    Args:
        chat: whether prompts go through the chat template; None: as the checkpoint was trained.
        max_memory: bytes that the process may take of the device's memory; layers that don't fit
            are streamed.
        report: called with bytes downloaded and bytes to download while weights are fetched.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        *,
        chat: bool | None = None,
        max_memory: int | None = None,
        report: ProgressCallback | None = None,
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.max_memory = max_memory
        # Measured once, before any of this pipeline's weights are read: budgets must neither count
        # them twice nor change from pass to pass.
        self.base_bytes = process_bytes(device)
        self.modules = ModuleStore(checkpoint.tensors, device, dtype)
        self.encoder = AudioEncoder(checkpoint, self.modules)
        self.lm = LanguageModel(checkpoint, self.modules)
        self._tokenizer: PromptTokenizer | None = None
        self._chat, self._report = chat, report
        self._fetched: set[Tap | None] = set()

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer and prompt format, read when first needed: the encoder needs neither."""
        if self._tokenizer is None:
            self._tokenizer = PromptTokenizer(self.checkpoint, self._chat)
        return self._tokenizer

    @property
    def dtype_name(self) -> str:
        """Such as "float32"."""
        return str(self.dtype).removeprefix("torch.")

    def cost(self, tap: Tap | None) -> CostEstimate:
        """Cost of computing up to a tap; None: of generating text."""
        return estimate_cost(
            self.checkpoint, tap, self.dtype, self.device, self.max_memory, self.base_bytes
        )

    def log_mel(self, samples: Float32[np.ndarray, "samples"]) -> LogMel:
        """The log-mel spectrogram of one window, from the checkpoint's feature extractor."""
        return compute_log_mel(samples, self.checkpoint.feature_extractor)

    def fetch_weights(self, tap: Tap | None) -> None:
        """Download what a tap (None: text) needs, all at once and not module by module.

        Raises:
            OptionError: before that, if `max_memory` is too little.
            CheckpointError: if the hub can't deliver it.
        """
        self._divide_memory(tap)
        if not {tap, None} & self._fetched:
            self.checkpoint.fetch(tap, self._report)
            self._fetched.add(tap)

    def _divide_memory(self, tap: Tap | None) -> None:
        """Leave to weights what the process and the activations up to a tap don't need."""
        if self.max_memory is None:
            return
        settings = (self.checkpoint, tap, self.dtype, self.device, self.base_bytes)
        self.modules.max_bytes = self.max_memory - non_weight_bytes(*settings)
        check_memory(self.max_memory, *settings)

    def encode_audio(self, mels: Sequence[LogMel]) -> list[Tensor]:
        """For each window its rows at `projector`, (audio tokens, width): the LM's audio input."""
        if not mels:
            return []
        self.fetch_weights(_PROJECTOR)
        return self.encoder.forward(mels, [_PROJECTOR], all_rows)[_PROJECTOR]

    def build_inputs(
        self, prompt_text: str, audio_rows: Sequence[Sequence[Tensor]]
    ) -> list[DecoderInput]:
        """Merge a prompt with the audio of each input.

        Args:
            prompt_text: as rendered, with `<|AUDIO|>` for every audio.
            audio_rows: for each input its audios in order, as rows at `projector`.

        Raises:
            OptionError: if an input has more or fewer audios than the prompt has placeholders.
        """
        prompt_ids = self.tokenizer.encode(prompt_text)
        return [
            DecoderInput(
                self.tokenizer.expand_audio_tokens(prompt_ids, [len(rows) for rows in audios]),
                torch.cat(list(audios)) if audios else None,
            )
            for audios in audio_rows
        ]

    def generate(
        self,
        prompt_text: str,
        audio_rows: Sequence[Sequence[Tensor]],
        sampling: Sampling,
        *,
        chat: bool | None = None,
        context: CachedContext | None = None,
        stream: Callable[[str], None] | None = None,
    ) -> list[GeneratedText]:
        """Continue a prompt, for a batch of inputs that differ in their audio.

        Args:
            prompt_text, audio_rows: see `build_inputs`.
            chat: whether the end of a turn stops generation; None: as the checkpoint was loaded.
            context: for a single input: what was processed before, not computed again where the
                input begins with it; updated to this input and the text generated.
            stream: called with pieces of the first input's text; together they are the text.

        Raises:
            OptionError: if an input doesn't fit the prompt or the model's context.
        """
        self.fetch_weights(None)
        if not audio_rows:
            return []
        inputs = self.build_inputs(prompt_text, audio_rows)
        cache = context.shared_with(inputs[0].token_ids) if context is not None else None
        cache = self.lm.new_cache(len(inputs)) if cache is None else cache
        unprocessed = [
            item.suffix(cache.length(clip), self.tokenizer.audio_token_id)
            for clip, item in enumerate(inputs)
        ]
        last_rows = self.lm.forward(unprocessed, [_LM_NORM], last_row, cache)[_LM_NORM]
        text_stream = None if stream is None else TextStream(self.tokenizer, stream)
        new_ids = self._continue(
            inputs,
            last_rows,
            cache,
            sampling,
            chat,
            None if text_stream is None else text_stream.update,
        )
        stop_ids = self.tokenizer.stop_token_ids(chat)
        texts = [
            generated_text(self.tokenizer, item, ids, stop_ids, sampling.max_new_tokens)
            for item, ids in zip(inputs, new_ids, strict=True)
        ]
        if text_stream is not None:
            text_stream.finish(texts[0].text)
        if context is not None:
            token_ids = (*inputs[0].token_ids, *new_ids[0])
            context.token_ids, context.cache = token_ids[: cache.length(0)], cache
        return texts

    def capture(
        self,
        windows: Sequence[AudioWindow],
        taps: Iterable[Tap],
        reducer: RowReducer[T],
        prompt_text: str | None = None,
        continuation: Sampling | None = None,
        *,
        with_projector_rows: bool = False,
    ) -> list[CapturedWindow[T]]:
        """Reduce the rows of every tap, in one pass over all windows that stops at the deepest.

        Args:
            reducer: called with each window's rows at each tap as soon as the layer has run, so
                that rows which it doesn't return are freed (unless there is a continuation).
            prompt_text: the rendered prompt, for taps in the language model.
            continuation: also generate, and capture the rows of the generated tokens.
            with_projector_rows: also return the rows at `projector`, from the same pass:
                `generate` takes them.
        """
        wanted = set(taps)
        lm_taps = {tap for tap in wanted if tap.in_language_model}
        encoder_taps = wanted - lm_taps
        if lm_taps or with_projector_rows:
            encoder_taps.add(_PROJECTOR)
        self.fetch_weights(None if continuation else max(wanted | encoder_taps))
        captured: list[CapturedWindow[T]] = [CapturedWindow() for _ in windows]
        audio_rows: list[Tensor] = [torch.empty(0)] * len(windows)

        def reduce_encoder_rows(tap: Tap, clip: int, rows: Tensor) -> None:
            if tap == _PROJECTOR:
                audio_rows[clip] = rows
            if tap in wanted:
                captured[clip].outputs[tap] = reducer(rows, (("audio", len(rows)),))

        self.encoder.forward(
            [window.log_mel for window in windows], encoder_taps, reduce_encoder_rows
        )
        if with_projector_rows:
            for window, rows in zip(captured, audio_rows, strict=True):
                window.projector_rows = rows
        if lm_taps:
            inputs = self.build_inputs(prompt_text or "", [[rows] for rows in audio_rows])
            for window, item in zip(captured, inputs, strict=True):
                window.token_ids = item.token_ids
                window.segments = item.segments(self.tokenizer.audio_token_id)
            if continuation is None:
                self._capture_lm(captured, inputs, lm_taps, reducer)
            else:
                self._capture_continuation(captured, inputs, lm_taps, reducer, continuation)
        return captured

    def _capture_lm(
        self,
        captured: Sequence[CapturedWindow[T]],
        inputs: Sequence[DecoderInput],
        taps: set[Tap],
        reducer: RowReducer[T],
    ) -> None:
        def reduce_rows(tap: Tap, clip: int, rows: Tensor) -> None:
            captured[clip].outputs[tap] = reducer(rows, captured[clip].segments)

        self.lm.forward(inputs, taps, reduce_rows)

    def _capture_continuation(
        self,
        captured: Sequence[CapturedWindow[T]],
        inputs: Sequence[DecoderInput],
        taps: set[Tap],
        reducer: RowReducer[T],
        sampling: Sampling,
    ) -> None:
        cache = self.lm.new_cache(len(inputs))
        rows_of = self.lm.forward(inputs, taps | {_LM_NORM}, all_rows, cache)
        caches = [cache.truncated(clip, len(item.token_ids)) for clip, item in enumerate(inputs)]
        last_rows = [rows[-1:] for rows in rows_of[_LM_NORM]]
        for clip, new_ids in enumerate(self._continue(inputs, last_rows, cache, sampling)):
            window, rows = captured[clip], {tap: rows_of[tap][clip] for tap in taps}
            # A token after the last position of the context has no rows.
            if new_ids := new_ids[: self.lm.max_positions - len(window.token_ids)]:
                # The generated tokens once more, all at once, after the positions before them.
                new_rows = self.lm.forward([DecoderInput(new_ids)], taps, all_rows, caches[clip])
                rows = {tap: torch.cat([rows[tap], new_rows[tap][0]]) for tap in taps}
                window.token_ids += new_ids
                window.segments += (("generated", len(new_ids)),)
            for tap in taps:
                window.outputs[tap] = reducer(rows[tap], window.segments)

    def _continue(
        self,
        inputs: Sequence[DecoderInput],
        last_rows: Sequence[Tensor],
        cache: KeyValueCache,
        sampling: Sampling,
        chat: bool | None = None,
        on_tokens: Callable[[Sequence[int]], None] | None = None,
    ) -> list[tuple[int, ...]]:
        return generate_tokens(
            self.lm,
            last_rows,
            cache,
            context_ids=[item.token_ids for item in inputs],
            sampling=sampling,
            stop_ids=self.tokenizer.stop_token_ids(chat),
            repetition_penalty=self.checkpoint.repetition_penalty,
            on_tokens=on_tokens,
        )

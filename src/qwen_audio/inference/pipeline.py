"""One checkpoint's pipeline for batches of windows: log-mel, encoder, language model, text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.models.tap import Stage, Tap

from .decoder_input import DecoderInput
from .generation import (
    CachedContext,
    GeneratedText,
    GeneratingSequence,
    GenerationBatch,
    generated_text,
)
from .options import Sampling
from .out_of_memory import explains_out_of_memory
from .pipeline_stages import PROJECTOR
from .reducers import CapturedWindow, RowReducer, all_rows
from .score import ScoringStages
from .spans import audio_segments
from .text_stream import TextStream

__all__ = ["Pipeline"]

_LM_NORM = Tap(Stage.LM_NORM)

T = TypeVar("T")


class Pipeline(ScoringStages):
    """Text, scores and rows of batches of windows: see `PipelineStages` for the arguments."""

    @explains_out_of_memory
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
            OutOfMemoryError: if the device has less memory than it takes.
        """
        self.fetch_weights(None)
        if not audio_rows:
            return []
        inputs = self.build_inputs(prompt_text, audio_rows)

        def positions(item: DecoderInput) -> tuple[int, int]:
            return self.positions(len(item.token_ids), sampling)

        self.lm.check_context(max(len(item.token_ids) for item in inputs))
        texts: list[GeneratedText] = []
        self.memory.divide(None, max(positions(item)[1] for item in inputs))
        for batch in self.memory.batches(inputs, positions):
            self.memory.make_room(sum(positions(item)[1] for item in batch), context)
            texts += self._generate_batch(batch, sampling, chat, context, stream)
        return texts

    def _generate_batch(
        self,
        inputs: Sequence[DecoderInput],
        sampling: Sampling,
        chat: bool | None,
        context: CachedContext | None,
        stream: Callable[[str], None] | None,
    ) -> list[GeneratedText]:
        if self.edits_language_model:
            # What is cached was made under other edits, or of a part of the rows of this input.
            context = None
        cache, slot = (
            (None, None)
            if context is None
            else context.take(inputs[0].token_ids, self.lm.new_cache)
        )
        self.lm.load_head()
        batch = GenerationBatch(self.lm, cache)
        stop_ids = self.tokenizer.stop_token_ids(chat)
        sequences = [batch.join(item, sampling, stop_ids=stop_ids, slot=slot) for item in inputs]
        text_stream = None if stream is None else TextStream(self.tokenizer, stream)

        def emit(sequence: GeneratingSequence) -> None:
            if text_stream is not None and sequence is sequences[0]:
                text_stream.update(sequence.token_ids)

        try:
            batch.run(emit)
        finally:  # also what was processed before a stream was closed
            if context is not None and slot is not None:
                token_ids = (*inputs[0].token_ids, *sequences[0].token_ids)
                context.keep(batch.cache, slot, token_ids)
                self.memory.keep(context)
        texts = [generated_text(self.tokenizer, sequence) for sequence in sequences]
        if text_stream is not None:
            text_stream.finish(texts[0].text)
        return texts

    @explains_out_of_memory
    def capture(
        self,
        windows: Sequence[AudioWindow],
        taps: Iterable[Tap],
        reducer: RowReducer[T],
        prompt_text: str | None = None,
        continuation: Sampling | None = None,
        *,
        with_projector_rows: bool = False,
        on_layer: Callable[[], None] | None = None,
    ) -> list[CapturedWindow[T]]:
        """Reduce the rows of every tap, in one pass over all windows that stops at the deepest.

        Args:
            reducer: called with each window's rows at each tap as soon as the layer has run, so
                that rows which it doesn't return are freed (unless there is a continuation).
            prompt_text: the rendered prompt, for taps in the language model.
            continuation: also generate, and capture the rows of the generated tokens.
            with_projector_rows: also return the rows at `projector`, from the same pass:
                `generate` takes them.
            on_layer: see `AudioEncoder.forward`; not called in the language model.
        """
        wanted, family = set(taps), self.checkpoint.family
        lm_taps = {tap for tap in wanted if tap.in_language_model}
        encoder_taps = wanted - lm_taps
        if lm_taps or with_projector_rows:
            encoder_taps.add(PROJECTOR)
        self.fetch_weights(None if continuation else max(wanted | encoder_taps))
        if lm_taps and windows:
            prompt_tokens = self.tokenizer.text_tokens(prompt_text or "")

            def positions(window: AudioWindow) -> tuple[int, int]:
                audio_tokens = family.audio_tokens(window.log_mel.valid_frames)
                return self.positions(prompt_tokens + audio_tokens, continuation)

            batches = list(self.memory.batches(windows, positions))
            if len(batches) > 1:
                options = (reducer, prompt_text, continuation)
                capture = partial(
                    self.capture, with_projector_rows=with_projector_rows, on_layer=on_layer
                )
                parts = [capture(part, wanted, *options) for part in batches]
                return [window for part in parts for window in part]
            if continuation is not None:
                self.memory.divide(None, max(positions(window)[1] for window in windows))
                self.memory.make_room(sum(positions(window)[1] for window in windows))
        captured: list[CapturedWindow[T]] = [CapturedWindow() for _ in windows]
        # Rows of audio at `projector`, after which padding may follow; other taps have no more.
        kept = [0] * len(windows)
        audio_rows: list[Tensor] = [torch.empty(0)] * len(windows)

        def reduce_encoder_rows(tap: Tap, clip: int, rows: Tensor) -> None:
            if tap == PROJECTOR:
                audio_rows[clip] = rows
                padding = family.padding_tokens(windows[clip].log_mel.valid_frames)
                self.note_padding(rows, padding)
                kept[clip] = len(rows) - padding
            if tap in wanted:
                audio = kept[clip] if tap == PROJECTOR else len(rows)
                captured[clip].outputs[tap] = reducer(rows, audio_segments(len(rows), audio))

        self.encoder.forward(
            [window.log_mel for window in windows], encoder_taps, reduce_encoder_rows, on_layer
        )
        if with_projector_rows:
            for window, rows in zip(captured, audio_rows, strict=True):
                window.projector_rows = rows
        if lm_taps:
            inputs = self.build_inputs(prompt_text or "", [[rows] for rows in audio_rows])
            for window, item, audio in zip(captured, inputs, kept, strict=True):
                window.token_ids = item.token_ids
                window.segments = item.segments(self.tokenizer.audio_token_id, audio)
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
        """Rows of the inputs, then generation, then the rows of what was generated.

        Each layer of the inputs is computed once: generation begins with their cached positions and
        last rows, so that edits that change nothing change no bit.
        """
        batch = GenerationBatch(self.lm)
        slots = [batch.cache.add() for _ in inputs]
        with batch.cache.extend(slots, [len(item.token_ids) for item in inputs]) as cached:
            rows_of = self.lm.forward(inputs, taps | {_LM_NORM}, all_rows, cached)
        sequences: list[GeneratingSequence] = []
        for item, slot in zip(inputs, slots, strict=True):
            last = rows_of[_LM_NORM][len(sequences)][-1:]
            stop_ids = self.tokenizer.stop_token_ids(None)
            joined = batch.join(item, sampling, stop_ids=stop_ids, slot=slot, last_row=last)
            sequences.append(joined)
        batch.run()
        for clip, sequence in enumerate(sequences):
            window, rows = captured[clip], {tap: rows_of[tap][clip] for tap in taps}
            length, slot = len(window.token_ids), sequence.slot
            # A token after the last position of the context has no rows.
            if new_ids := tuple(sequence.token_ids[: self.lm.max_positions - length]):
                # The generated tokens once more, all at once, after the positions before them.
                batch.cache.truncate(slot, length)
                with batch.cache.extend([slot], [len(new_ids)]) as cached:
                    new_rows = self.lm.forward([DecoderInput(new_ids)], taps, all_rows, cached)
                rows = {tap: torch.cat([rows[tap], new_rows[tap][0]]) for tap in taps}
                window.token_ids += new_ids
                window.segments += (("generated", len(new_ids)),)
            batch.cache.release(slot)
            for tap in taps:
                window.outputs[tap] = reducer(rows[tap], window.segments)

"""One checkpoint's stages on one device: log-mel, encoder, inputs of the language model, memory."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from functools import cached_property, partial
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from qwen_audio.audio.log_mel import LogMel, Surroundings
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import NewPeak
from qwen_audio.errors import OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.components.prompt import PromptTokenizer
from qwen_audio.models.kv_cache import block_positions
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.download import ProgressCallback
from qwen_audio.weights.module_store import ModuleStore

from .cost import CostEstimate, estimate_cost, process_bytes
from .decoder import LanguageModel
from .decoder_input import DecoderInput
from .encoder import AudioEncoder
from .interventions import ActiveEdit, active_edits, described, edited_row_times
from .memory_budget import MemoryBudget
from .options import Sampling
from .out_of_memory import explains_out_of_memory
from .reducers import all_rows

__all__ = ["PROJECTOR", "PipelineStages"]

PROJECTOR = Tap(Stage.PROJECTOR)


class PipelineStages:
    """Checkpoint, encoder, language model and tokenizer, on one device in one dtype.

    Args:
        chat: whether prompts go through the chat template; None: as the checkpoint was trained.
        max_memory: bytes that the process may take of the device's memory; layers that don't fit
            are streamed.
        report: called with bytes downloaded and bytes to download while weights are fetched.
        report_quantized: called with bytes quantised and bytes to quantise, the first time.
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
        report_quantized: ProgressCallback | None = None,
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.max_memory = max_memory
        # Measured once, before any of this pipeline's weights are read: budgets must neither count
        # them twice nor change from pass to pass.
        self.base_bytes = process_bytes(device)
        self.modules = ModuleStore(
            checkpoint.tensors,
            device,
            dtype,
            quantized=checkpoint.quantized,
            outlier_inputs=checkpoint.family.outlier_inputs,
            float32_names=checkpoint.family.float32_names,
            experts_prefix=checkpoint.family.experts_prefix,
        )
        self.memory = MemoryBudget(checkpoint, self.modules, max_memory, self.base_bytes)
        self.encoder = AudioEncoder(checkpoint, self.modules)
        self._tokenizer: PromptTokenizer | None = None
        self._chat, self._report, self._report_quantized = chat, report, report_quantized
        self._fetched: set[Tap | None] = set()
        self._padding: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    @cached_property
    def lm(self) -> LanguageModel:
        """The language model. Raises OptionError where there is none."""
        if not self.checkpoint.dimensions.has_language_model:
            raise OptionError(
                f"{self.checkpoint.name} has no language model: use its taps up to "
                f"{self.checkpoint.dimensions.taps()[-1]}"
            )
        return LanguageModel(self.checkpoint, self.modules)

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer and prompt format, read when first needed: the encoder needs neither."""
        if self._tokenizer is None:
            self._tokenizer = self.checkpoint.tokenizer(self._chat)
        return self._tokenizer

    @property
    def edits(self) -> tuple[ActiveEdit, ...]:
        """Those that are active in this thread or task."""
        return active_edits(self.modules)

    def row_times(self, tap: Tap) -> RowTimes:
        """When the audio rows of a tap begin, edits considered.

        Raises:
            OptionError: if an edit has changed their number, and doesn't say which rows are left.
        """
        return edited_row_times(self.edits, self.checkpoint.dimensions, tap)

    @property
    def all_edits(self) -> str | None:
        """The description of all edits, as results state it; None where there are none."""
        return described(self.edits)

    @property
    def audio_edits(self) -> str | None:
        """The description of edits up to the projector; None where there are none."""
        return described(self.edits, PROJECTOR)

    @property
    def edits_language_model(self) -> bool:
        """Whether one of them is at a tap in the language model."""
        return any(each.place.tap.in_language_model for each in self.edits)

    @property
    def dtype_name(self) -> str:
        """Such as "float32"."""
        return str(self.dtype).removeprefix("torch.")

    def cost(self, tap: Tap | None) -> CostEstimate:
        """Cost of computing up to a tap; None: of generating text."""
        return estimate_cost(
            self.checkpoint, tap, self.dtype, self.device, self.max_memory, self.base_bytes
        )

    def holds_weights(self, tap: Tap | None) -> bool:
        """Whether all weights of a tap (None: of text) fit in memory; else layers are streamed."""
        if self.max_memory is None:
            return True
        settings = (self.dtype, self.device, None, self.base_bytes)
        return estimate_cost(self.checkpoint, tap, *settings).peak_memory_bytes <= self.max_memory

    def window_config(
        self, window_seconds: float, hop_seconds: float | None = None
    ) -> WindowConfig:
        """Raises OptionError for lengths that aren't numbers, or not within the model's limits."""
        return WindowConfig(window_seconds, hop_seconds, self.checkpoint.family.window_limits)

    @property
    def new_peak(self) -> NewPeak | None:
        """What measures recordings of several windows; None where that isn't needed."""
        family, extractor = self.checkpoint.family, self.checkpoint.feature_extractor
        if family.recording_peak(extractor) is None:
            return None
        return cast(NewPeak, partial(family.recording_peak, extractor))

    def log_mel(
        self, samples: Float32[np.ndarray, "samples"], around: Surroundings | None = None
    ) -> LogMel:
        """The log-mel spectrogram of one window, from the checkpoint's feature extractor.

        Args:
            around: of a window of a recording that was measured.
        """
        family, extractor = self.checkpoint.family, self.checkpoint.feature_extractor
        if around is None:
            return family.log_mel(samples, extractor)
        return family.log_mel_within(samples, around, extractor)

    def fetch_weights(self, tap: Tap | None) -> None:
        """Download what a tap (None: text) needs, all at once and not module by module, and
        quantise it where that was asked for.

        Raises:
            OptionError: before that, if `max_memory` is too little.
            CheckpointError: if the hub can't deliver it.
        """
        self.memory.divide(tap)
        if not {tap, None} & self._fetched:
            self.checkpoint.fetch(tap, self._report, self._report_quantized)
            self._fetched.add(tap)

    @explains_out_of_memory
    def encode_audio(
        self, mels: Sequence[LogMel], on_layer: Callable[[], None] | None = None
    ) -> list[Tensor]:
        """For each window its rows at `projector`, (audio tokens, width): the LM's audio input.

        Args:
            on_layer: see `AudioEncoder.forward`.

        Raises:
            OptionError: where there is no language model.
        """
        if not mels:
            return []
        _ = self.lm
        self.fetch_weights(PROJECTOR)
        audio_rows = self.encoder.forward(mels, [PROJECTOR], all_rows, on_layer)[PROJECTOR]
        family = self.checkpoint.family
        for rows, mel in zip(audio_rows, mels, strict=True):
            self.note_padding(rows, family.padding_tokens(mel.valid_frames))
        return audio_rows

    def note_padding(self, rows: Tensor, padding: int) -> None:
        """Remember how many of a window's rows at `projector` are padding, the last ones, as long
        as they exist: edits of its audio leave them out."""
        if padding:
            self._padding[rows] = padding

    def padding_of(self, rows: Tensor) -> int:
        """How many of a window's rows at `projector` are padding."""
        return self._padding.get(rows, 0)

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
                audios=tuple((len(rows) - (n := self.padding_of(rows)), n) for rows in audios),
            )
            for audios in audio_rows
        ]

    def positions(self, length: int, sampling: Sampling | None) -> tuple[int, int]:
        """Positions that an input has, and those of the cache's blocks with its answer."""
        new_tokens = 0 if sampling is None else sampling.max_new_tokens
        block = block_positions(self.device)
        return length, -(-min(length + new_tokens, self.lm.max_positions) // block) * block

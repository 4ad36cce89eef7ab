"""The whole line of one checkpoint, for a batch of windows: mel, ear, language model, words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32

from qwen_audio.audio.log_mel import AudioWindow, LogMel, compute_log_mel
from qwen_audio.errors import OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.qwen2_audio.prompt import Prompts
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.download import Report
from qwen_audio.weights.module_store import ModuleStore

from .cost import CostEstimate, estimate_cost, least_bytes, working_bytes
from .decoder import DecoderInput, LanguageModel
from .encoder import AudioEncoder
from .generation import generate
from .hidden_states import Segment, SpanKind
from .reducers import RowReducer, _last_row, whole_rows
from .sampling import Sampling

__all__ = ["Pipeline"]

_PROJECTOR, _NORM = Tap(Stage.PROJECTOR), Tap(Stage.LM_NORM)

T = TypeVar("T")


class Pipeline:
    """Checkpoint, ear, language model and prompts, on one device in one dtype.

    Args:
        max_memory: bytes that weights and work may take together; layers that don't fit are
            streamed.
        report: called with bytes brought and bytes to bring while a hub's weights are fetched.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        *,
        chat: bool | None = None,
        max_memory: int | None = None,
        report: Report | None = None,
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.max_memory = max_memory
        self.modules = ModuleStore(checkpoint.tensors, device, dtype)
        self.encoder, self.lm = (
            AudioEncoder(checkpoint, self.modules),
            LanguageModel(checkpoint, self.modules),
        )
        self._prompts: Prompts | None = None
        self._chat, self._report = chat, report
        self._brought: set[Tap | None] = set()

    @property
    def prompts(self) -> Prompts:
        """The tokenizer and prompt style, read when first needed: the ear needs neither."""
        if self._prompts is None:
            self._prompts = Prompts(self.checkpoint, self._chat)
        return self._prompts

    @property
    def dtype_name(self) -> str:
        """Such as "float32"."""
        return str(self.dtype).removeprefix("torch.")

    def cost(self, tap: Tap | None) -> CostEstimate:
        """What reading at a tap takes; None: text."""
        return estimate_cost(self.checkpoint, tap, self.dtype, self.device, self.max_memory)

    def mel(self, samples: Float32[np.ndarray, "samples"]) -> LogMel:
        """The log-mel spectrogram of one window, as this checkpoint's extractor makes it."""
        return compute_log_mel(samples, self.checkpoint.extractor)

    def fetch_weights(self, tap: Tap | None) -> None:
        """Fetch from a hub what a tap (None: text) needs, all at once and not part by part.

        Raises:
            OptionError: before that, if memory won't do.
        """
        self._divide_memory(tap)
        if not {tap, None} & self._brought:
            self.checkpoint.fetch(tap, self._report)
            self._brought.add(tap)

    def _divide_memory(self, tap: Tap | None) -> None:
        """What the work up to a tap doesn't need is for weights."""
        if self.max_memory is None:
            return
        where = (self.checkpoint, tap, self.dtype, self.device)
        self.modules.max_bytes = self.max_memory - working_bytes(*where)
        if (least := least_bytes(*where)) > self.max_memory:
            raise OptionError(
                f"{tap or 'text'} of {self.checkpoint.name} in {self.dtype_name} takes "
                f"{math.ceil(least / 1e6)}MB of memory at the least, and may take "
                f"{self.max_memory // 10**6}MB: give max_memory='{math.ceil(least / 1e6)}MB' or "
                "more, or choose a tap further left"
            )

    def encode_audio(self, mels: Sequence[LogMel]) -> list[torch.Tensor]:
        """For each window the projector's rows, (audio tokens, width): what the LM is given."""
        if not mels:
            return []
        self.fetch_weights(_PROJECTOR)
        return self.encoder.forward(mels, [_PROJECTOR], whole_rows)[_PROJECTOR]

    def build_inputs(self, prompt_text: str, *audios: torch.Tensor) -> DecoderInput:
        """A rendered prompt and its audios (rows of the projector) → what the LM reads."""
        ids = self.prompts.merged(self.prompts.ids(prompt_text), [len(rows) for rows in audios])
        return DecoderInput(ids, torch.cat(audios) if audios else None)

    def generate(
        self,
        clips: Sequence[DecoderInput],
        sampling: Sampling,
        *,
        chat: bool | None = None,
        cache: KeyValueCache | None = None,
        on_tokens: Callable[[Sequence[int]], None] | None = None,
    ) -> list[tuple[int, ...]]:
        """Read the clips (as far as the cache hasn't) and continue them. Returns the new tokens.

        Args:
            chat: whether they end where a turn does; by default as the prompts are made.
        """
        self.fetch_weights(None)
        cache = self.lm.new_cache(len(clips)) if cache is None else cache
        unread = [
            clip.after(cache.rows(place), self.prompts.audio_id) for place, clip in enumerate(clips)
        ]
        last = self.lm.forward(unread, [_NORM], _last_row, cache)[_NORM]
        return self._continue(clips, last, cache, sampling, chat, on_tokens)

    def capture(
        self,
        pieces: Sequence[AudioWindow],
        taps: Iterable[Tap],
        keep: RowReducer[T],
        prompt_text: str | None = None,
        continuation: Sampling | None = None,
    ) -> list[dict[Tap, T]]:
        """Every tap asked for, in one pass over all pieces that stops after the deepest.

        Args:
            keep: what to keep of each piece's rows at each tap. Called while the pass goes on, so
                that what it does not keep takes no memory (unless there is a continuation).
            rendered: the prompt, needed for taps in the language model.
            continuation: also generate, and read the states of the tokens generated.

        Returns:
            For each piece and tap what was kept.
        """
        wanted = set(taps)
        self.fetch_weights(None if continuation else max(wanted))
        lm_taps = {tap for tap in wanted if tap.in_language_model}
        result: list[dict[Tap, T]] = [{} for _ in pieces]
        audio: list[torch.Tensor] = [torch.empty(0)] * len(pieces)

        def keep_heard(tap: Tap, place: int, rows: torch.Tensor) -> None:
            if tap == _PROJECTOR:
                audio[place] = rows
            if tap in wanted:
                result[place][tap] = keep(rows, (("audio", len(rows)),))

        ear_taps = wanted - lm_taps | ({_PROJECTOR} if lm_taps else set())
        self.encoder.forward([piece.log_mel for piece in pieces], ear_taps, keep_heard)
        if not lm_taps:
            return result

        clips = [self.build_inputs(prompt_text or "", rows) for rows in audio]
        segments = [self.segments(clip.ids) for clip in clips]
        if continuation is None:

            def keep_read(tap: Tap, place: int, rows: torch.Tensor) -> None:
                result[place][tap] = keep(rows, segments[place])

            self.lm.forward(clips, lm_taps, keep_read)
            return result

        cache = self.lm.new_cache(len(clips))
        read = self.lm.forward(clips, lm_taps | {_NORM}, whole_rows, cache)
        before = [cache.truncated(place, len(clip.ids)) for place, clip in enumerate(clips)]
        last = [rows[-1:] for rows in read[_NORM]]
        for place, new in enumerate(self._continue(clips, last, cache, continuation)):
            # The tokens generated, read once more, all at once, after what came before them.
            states = self.lm.forward([DecoderInput(new)], lm_taps, whole_rows, before[place])
            for tap in lm_taps:
                rows = torch.cat([read[tap][place], states[tap][0]])
                result[place][tap] = keep(rows, (*segments[place], ("generated", len(new))))
        return result

    def _continue(
        self,
        clips: Sequence[DecoderInput],
        last: Sequence[torch.Tensor],
        cache: KeyValueCache,
        sampling: Sampling,
        chat: bool | None = None,
        on_tokens: Callable[[Sequence[int]], None] | None = None,
    ) -> list[tuple[int, ...]]:
        penalty = self.checkpoint.generation_config.get("repetition_penalty") or 1.0
        return generate(
            self.lm,
            last,
            cache,
            read=[clip.ids for clip in clips],
            sampling=sampling,
            stop_ids=self.prompts.stop_ids(chat),
            repetition_penalty=penalty,
            on_tokens=on_tokens,
        )

    def segments(self, ids: Sequence[int]) -> tuple[Segment, ...]:
        """Merged ids → runs of prompt and audio."""
        segments: list[Segment] = []
        for token in ids:
            kind: SpanKind = "audio" if token == self.prompts.audio_id else "prompt"
            if segments and segments[-1][0] == kind:
                segments[-1] = (kind, segments[-1][1] + 1)
            else:
                segments.append((kind, 1))
        return tuple(segments)

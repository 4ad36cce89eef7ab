"""The whole line of one checkpoint, for a batch of windows: mel, ear, language model, words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from .audio import Window
from .encoder import AudioEncoder
from .frames import Run, SpanKind, WindowRows
from .generation import Sampling, generate
from .lm import LanguageModel, Positions
from .mel import LogMel, log_mel
from .packed import KeyValueCache
from .prompt import Prompts
from .tap import Stage, Tap
from .weights import Checkpoint

__all__ = ["Line", "Piece"]

_PROJECTOR, _NORM = Tap(Stage.PROJECTOR), Tap(Stage.LM_NORM)


@dataclass(frozen=True, eq=False)
class Piece:
    """One window of one recording, on its way through the line.

    Attributes:
        clip: which of the caller's recordings it belongs to.
        name: what that recording is called.
    """

    clip: int
    name: str
    window: Window
    mel: LogMel


class Line:
    """Checkpoint, ear, language model and prompts, on one device in one dtype."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        chat: bool | None = None,
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self.encoder = AudioEncoder(checkpoint, device, dtype)
        self.lm = LanguageModel(checkpoint, device, dtype)
        self._prompts: Prompts | None = None
        self._chat = chat

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

    def mel(self, samples: Float32[np.ndarray, "samples"]) -> LogMel:
        """The log-mel spectrogram of one window, as this checkpoint's extractor makes it."""
        return log_mel(samples, self.checkpoint.extractor)

    def hear(self, mels: Sequence[LogMel]) -> list[torch.Tensor]:
        """For each window the projector's rows, (audio tokens, width): what the LM is given."""
        return self.encoder.forward(mels, [_PROJECTOR])[_PROJECTOR] if mels else []

    def positions(self, rendered: str, *audios: torch.Tensor) -> Positions:
        """A rendered prompt and its audios (rows of the projector) → what the LM reads."""
        ids = self.prompts.merged(self.prompts.ids(rendered), [len(rows) for rows in audios])
        return Positions(ids, torch.cat(audios) if audios else None)

    def say(
        self,
        clips: Sequence[Positions],
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
        cache = self.lm.new_cache(len(clips)) if cache is None else cache
        unread = [
            clip.after(cache.rows(place), self.prompts.audio_id) for place, clip in enumerate(clips)
        ]
        last = [rows[-1:] for rows in self.lm.forward(unread, [_NORM], cache)[_NORM]]
        return self._continue(clips, last, cache, sampling, chat, on_tokens)

    def states(
        self,
        pieces: Sequence[Piece],
        taps: Iterable[Tap],
        rendered: str | None = None,
        continuation: Sampling | None = None,
    ) -> list[dict[Tap, WindowRows]]:
        """Every tap asked for, in one pass over all pieces.

        Args:
            rendered: the prompt, needed for taps in the language model.
            continuation: also generate, and read the states of the tokens generated.

        Returns:
            For each piece and tap the rows as float32, and which of them are audio, prompt or
            generated.
        """
        wanted = set(taps)
        lm_taps = {tap for tap in wanted if tap.in_language_model}
        ear_taps = wanted - lm_taps
        heard = self.encoder.forward(
            [piece.mel for piece in pieces], ear_taps | ({_PROJECTOR} if lm_taps else set())
        )
        result: list[dict[Tap, WindowRows]] = [{} for _ in pieces]
        for tap in ear_taps:
            for place, rows in enumerate(heard[tap]):
                result[place][tap] = (_numpy(rows), (("audio", len(rows)),))
        if not lm_taps:
            return result

        clips = [self.positions(rendered or "", audio) for audio in heard[_PROJECTOR]]
        cache = self.lm.new_cache(len(clips)) if continuation else None
        read = self.lm.forward(clips, lm_taps | ({_NORM} if continuation else set()), cache)
        runs = [self._runs(clip.ids) for clip in clips]
        rows_of = {tap: list(read[tap]) for tap in lm_taps}
        if continuation and cache:
            before = [cache.cut(place, len(clip.ids)) for place, clip in enumerate(clips)]
            last = [rows[-1:] for rows in read[_NORM]]
            for place, new in enumerate(self._continue(clips, last, cache, continuation)):
                # The tokens generated, read once more, all at once, after what came before them.
                states = self.lm.forward([Positions(new)], lm_taps, before[place])
                for tap in lm_taps:
                    rows_of[tap][place] = torch.cat([rows_of[tap][place], states[tap][0]])
                runs[place] = (*runs[place], ("generated", len(new)))
        for tap in lm_taps:
            for place, rows in enumerate(rows_of[tap]):
                result[place][tap] = (_numpy(rows), runs[place])
        return result

    def _continue(
        self,
        clips: Sequence[Positions],
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

    def _runs(self, ids: Sequence[int]) -> tuple[Run, ...]:
        """Merged ids → runs of prompt and audio."""
        runs: list[Run] = []
        for token in ids:
            kind: SpanKind = "audio" if token == self.prompts.audio_id else "prompt"
            if runs and runs[-1][0] == kind:
                runs[-1] = (kind, runs[-1][1] + 1)
            else:
                runs.append((kind, 1))
        return tuple(runs)


def _numpy(rows: torch.Tensor) -> Float32[np.ndarray, "rows width"]:
    return rows.float().cpu().numpy().copy()

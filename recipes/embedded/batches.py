"""Training batches of the text model: audio tokens, questions and answers as token sequences.

All clips of a batch have the same length, so audio needs neither padding nor a mask. Several
questions about a clip share its audio: they follow it as branches, and each branch attends to the
audio and to itself only.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from .captions import QUESTIONS, Attributes, answer, reliable_attributes
from .dataset import EXTRA_FRAMES
from .tokenizer import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    CHAT_BETWEEN,
    CHAT_START,
    END,
    TURN_END,
    token_id,
)

_MEL_UNIT_DB = 40.0  # decibels per unit of a log-mel


def audio_tokens(frames: int) -> int:
    """Number of audio tokens of a clip with `frames` mel frames."""
    return ((frames - 1) // 2 + 1) // 2


def mel_frames(mel: torch.Tensor) -> int:
    """Number of mel frames of the clips, without the `EXTRA_FRAMES` after them."""
    return int(mel.shape[-1]) - EXTRA_FRAMES


def augment(rng: np.random.Generator, mel: torch.Tensor) -> torch.Tensor:
    """Augment log-mels [clips, bands, frames]: random equalizers, masked bands and frames.

    So a clip that is read a second time is not the same.
    """
    count, bands, length = mel.shape
    knots = torch.from_numpy(rng.normal(0, 2.5, (count, 1, 7))).float()
    curve = functional.interpolate(knots, size=bands, mode="linear").mT / _MEL_UNIT_DB
    augmented = mel.float() + curve
    for clip in range(count):
        if rng.random() < 0.3:
            size, floor = int(rng.integers(2, 14)), augmented[clip].min()
            start = int(rng.integers(0, bands - size))
            augmented[clip, start : start + size] = floor
        if rng.random() < 0.2:
            size, floor = int(rng.integers(2, max(3, length // 12))), augmented[clip].min()
            start = int(rng.integers(0, length - size))
            augmented[clip, :, start : start + size] = floor
    return augmented


@dataclass(frozen=True)
class TokenBatch:
    """Token sequences of one step, each tensor [clips, positions].

    Attributes:
        tokens: ids, with AUDIO for each audio token of the clip.
        targets: the next token; -100 where there is no loss.
        positions: position ids.
        branches: 0 for positions that all branches share, 1, 2, … for branches, and -1 for padding,
            which attends to itself only.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    branches: torch.Tensor

    def to(self, device: str) -> "TokenBatch":
        """A copy on a device."""
        tensors = (self.tokens, self.targets, self.positions, self.branches)
        return TokenBatch(*(tensor.to(device) for tensor in tensors))


class Dialogue:
    """Builds token sequences from attributes: shared audio first, then branches."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._audio = token_id(tokenizer, AUDIO)
        self._encode = lru_cache(100_000)(self._encoded)

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def prefix(self, frames: int, chat: bool) -> list[int]:
        """Tokens before the question, with AUDIO for each audio token of the clip."""
        audio = AUDIO_START + AUDIO + AUDIO_END
        ids = self._encode(f"{CHAT_START}{audio}\n" if chat else audio)
        index = ids.index(self._audio)
        return [*ids[:index], *[self._audio] * audio_tokens(frames), *ids[index + 1 :]]

    def branch(
        self, question: str, reply: str, chat: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens of the question, and of the answer with its end token."""
        if chat:
            return self._encode(question + CHAT_BETWEEN), self._encode(reply + TURN_END)
        return self._encode(question), self._encode(f" {reply}{END}")

    def build(
        self,
        rng: np.random.Generator,
        attributes: tuple[Attributes, ...],
        frames: int,
        chat: bool,
        questions: int,
    ) -> TokenBatch:
        """Token sequences with each clip's caption and `questions` more questions and answers."""
        prefix = self.prefix(frames, chat)
        rows = []
        for clip_attributes in attributes:
            row = list(prefix), [-100] * len(prefix), list(range(len(prefix))), [0] * len(prefix)
            for number, topic in enumerate(_topics(rng, questions), start=1):
                question = str(rng.choice(QUESTIONS[topic]))
                if topic == "caption" and rng.random() < 0.6:
                    question = QUESTIONS[topic][0]
                reply = answer(reliable_attributes(clip_attributes), topic)
                question_ids, reply_ids = self.branch(question, reply, chat)
                size = len(question_ids) + len(reply_ids)
                row[0].extend([*question_ids, *reply_ids])
                # The target of a position is the token after it.
                row[1].extend([*[-100] * (len(question_ids) - 1), *reply_ids, -100])
                row[2].extend(range(len(prefix), len(prefix) + size))
                row[3].extend([number] * size)
            rows.append(row)
        width = max(len(row[0]) for row in rows)
        padding = (0, -100, 0, -1)
        return TokenBatch(
            *(
                torch.tensor([[*row[i], *[value] * (width - len(row[i]))] for row in rows])
                for i, value in enumerate(padding)
            )
        )


def _topics(rng: np.random.Generator, count: int) -> list[str]:
    others = [topic for topic in QUESTIONS if topic != "caption"]
    return ["caption", *(str(topic) for topic in rng.choice(others, count, replace=False))]


def attention_mask(branches: torch.Tensor) -> torch.Tensor:
    """Mask [clips, 1, positions, positions]: causal, over shared positions and the own branch."""
    size = branches.shape[1]
    ones = torch.ones(size, size, dtype=torch.bool, device=branches.device)
    same = branches[:, :, None] == branches[:, None, :]
    shared = branches[:, None, :] == 0
    return (ones.tril() & (same | shared))[:, None]

"""What the text model reads and learns: clips' frames, questions and answers as packed tokens.

All clips of a batch have the same length, so that nothing is padded and nothing needs a mask: a
clip cut to its length gives the composite model's masked numbers. Several questions about a clip
share its audio: they follow it as branches, each of which sees the audio and itself only.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from .captions import QUESTIONS, Attributes, answer, cautious
from .dataset import SPARE
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

_MEL_UNIT = 40.0  # decibels in one unit of a log-mel


def audio_tokens(frames: int) -> int:
    """How many audio tokens a clip of that many mel frames has."""
    return ((frames - 1) // 2 + 1) // 2


def frames_of(mel: torch.Tensor) -> int:
    """How many mel frames belong to the clips themselves."""
    return int(mel.shape[-1]) - SPARE


def varied(rng: np.random.Generator, mel: torch.Tensor) -> torch.Tensor:
    """Log-mels under smooth equalisers of some decibels, with bands and moments of some blotted.

    A clip that is read from the store a second time is not quite the same clip.
    """
    count, bands, length = mel.shape
    knots = torch.from_numpy(rng.normal(0, 2.5, (count, 1, 7))).float()
    curve = functional.interpolate(knots, size=bands, mode="linear").mT / _MEL_UNIT
    out = mel.float() + curve
    for clip in range(count):
        if rng.random() < 0.3:
            size, floor = int(rng.integers(2, 14)), out[clip].min()
            at = int(rng.integers(0, bands - size))
            out[clip, at : at + size] = floor
        if rng.random() < 0.2:
            size, floor = int(rng.integers(2, max(3, length // 12))), out[clip].min()
            at = int(rng.integers(0, length - size))
            out[clip, :, at : at + size] = floor
    return out


@dataclass(frozen=True)
class Talk:
    """Token sequences of one step. `tokens` hold AUDIO where the clip's frames go; `branches` are
    0 for what all branches share, -1 for padding (which sees itself only); `targets` is -100 where
    nothing is to be learnt."""

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    branches: torch.Tensor

    def to(self, device: str) -> "Talk":
        """The same on a device."""
        parts = (self.tokens, self.targets, self.positions, self.branches)
        return Talk(*(part.to(device) for part in parts))


class Dialogue:
    """Turns attributes into token sequences: shared audio first, then branches."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._audio = token_id(tokenizer, AUDIO)
        self._encode = lru_cache(100_000)(self._encoded)

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def prefix(self, frames: int, chat: bool) -> list[int]:
        """The tokens before the question, one AUDIO for each frame of the clip."""
        audio = AUDIO_START + AUDIO + AUDIO_END
        ids = self._encode(f"{CHAT_START}{audio}\n" if chat else audio)
        at = ids.index(self._audio)
        return [*ids[:at], *[self._audio] * audio_tokens(frames), *ids[at + 1 :]]

    def branch(
        self, question: str, reply: str, chat: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The question's tokens, and the answer's with its end."""
        if chat:
            return self._encode(question + CHAT_BETWEEN), self._encode(reply + TURN_END)
        return self._encode(question), self._encode(f" {reply}{END}")

    def talk(
        self,
        rng: np.random.Generator,
        attributes: tuple[Attributes, ...],
        frames: int,
        chat: bool,
        questions: int,
    ) -> Talk:
        """For each clip its caption and some questions, with their answers."""
        prefix = self.prefix(frames, chat)
        rows = []
        for truth in attributes:
            row = list(prefix), [-100] * len(prefix), list(range(len(prefix))), [0] * len(prefix)
            for number, topic in enumerate(_topics(rng, questions), start=1):
                question = str(rng.choice(QUESTIONS[topic]))
                if topic == "caption" and rng.random() < 0.6:
                    question = QUESTIONS[topic][0]
                asked, reply = self.branch(question, answer(cautious(truth), topic), chat)
                size = len(asked) + len(reply)
                row[0].extend([*asked, *reply])
                # Each position learns the token after it; the last of the question the first.
                row[1].extend([*[-100] * (len(asked) - 1), *reply, -100])
                row[2].extend(range(len(prefix), len(prefix) + size))
                row[3].extend([number] * size)
            rows.append(row)
        width = max(len(row[0]) for row in rows)
        fills = (0, -100, 0, -1)
        return Talk(
            *(
                torch.tensor([[*row[i], *[fill] * (width - len(row[i]))] for row in rows])
                for i, fill in enumerate(fills)
            )
        )


def _topics(rng: np.random.Generator, count: int) -> list[str]:
    others = [topic for topic in QUESTIONS if topic != "caption"]
    return ["caption", *(str(topic) for topic in rng.choice(others, count, replace=False))]


def mask(branches: torch.Tensor) -> torch.Tensor:
    """Who may look at whom: causally, at what is shared and at one's own branch."""
    size = branches.shape[1]
    ones = torch.ones(size, size, dtype=torch.bool, device=branches.device)
    same = branches[:, :, None] == branches[:, None, :]
    shared = branches[:, None, :] == 0
    return (ones.tril() & (same | shared))[:, None]

"""Batches drawn as training goes: clips of one length, their log-mels, questions and answers.

All clips of a batch have the same length, so that nothing is padded and nothing needs a mask: a
clip cut to its length gives the composite model's masked numbers. Several questions about a clip
share its audio: they follow it as branches, each of which sees the audio and itself only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor

from .captions import QUESTIONS, Attributes, answer, cautious
from .clips import draw
from .parts import Parts
from .render import Wave
from .text import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    CHAT_BETWEEN,
    CHAT_START,
    END,
    TURN_END,
    token_id,
)

HOP = 160
_WINDOW = 400
_SPARE = 2  # mel frames past the end that the convolutions still see
_EXTRACTOR = WhisperFeatureExtractor(feature_size=80)
_FILTERS = torch.from_numpy(_EXTRACTOR.mel_filters.T.astype(np.float32))
_HANN = torch.hann_window(_WINDOW)


def log_mel(wave: Wave) -> torch.Tensor:
    """What WhisperFeatureExtractor gives for the clip, and `_SPARE` frames of what follows it."""
    frames = -(-len(wave) // HOP)
    padded = np.pad(wave, (0, (frames + 4) * HOP - len(wave)))
    spectrum = torch.stft(torch.from_numpy(padded), _WINDOW, HOP, window=_HANN, return_complex=True)
    power = spectrum[:, : frames + _SPARE].abs().square()
    mel = (_FILTERS @ power).clamp(min=1e-10).log10()
    return (mel.maximum(mel.max() - 8.0) + 4.0) / 4.0


def audio_tokens(frames: int) -> int:
    """How many audio tokens a clip of that many mel frames has."""
    return ((frames - 1) // 2 + 1) // 2


@dataclass(frozen=True)
class Batch:
    """Tensors of one step. `tokens` hold AUDIO where the clip's frames go; `branches` are 0 for
    what all branches share, -1 for padding (which sees itself only); `targets` is -100 where
    nothing is to be learnt."""

    mel: torch.Tensor
    frames: int
    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    branches: torch.Tensor
    attributes: tuple[Attributes, ...]

    def to(self, device: str) -> "Batch":
        """The same batch with its tensors on a device."""
        names = ("mel", "tokens", "targets", "positions", "branches")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class Dialogue:
    """Turns attributes into token sequences: shared audio first, then branches."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._audio = token_id(tokenizer, AUDIO)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def prefix(self, frames: int, chat: bool) -> list[int]:
        """The tokens before the question, one AUDIO for each frame of the clip."""
        audio = AUDIO_START + AUDIO + AUDIO_END
        ids = self._encode(f"{CHAT_START}{audio}\n" if chat else audio)
        at = ids.index(self._audio)
        return [*ids[:at], *[self._audio] * audio_tokens(frames), *ids[at + 1 :]]

    def branch(self, question: str, reply: str, chat: bool) -> tuple[list[int], list[int]]:
        """The question's tokens, and the answer's with its end."""
        if chat:
            return self._encode(question + CHAT_BETWEEN), self._encode(reply + TURN_END)
        return self._encode(question), self._encode(f" {reply}{END}")


def _told(truth: Attributes, topic: str) -> Attributes:
    return truth if topic == "tempo" else cautious(truth)


def _topics(rng: np.random.Generator, count: int) -> list[str]:
    others = [topic for topic in QUESTIONS if topic != "caption"]
    return ["caption", *(str(topic) for topic in rng.choice(others, count, replace=False))]


def assemble(
    rng: np.random.Generator,
    dialogue: Dialogue,
    clips: list[tuple[Wave, Attributes]],
    chat: bool,
    questions: int,
) -> Batch:
    """A batch of clips of one length, each with its caption and some questions."""
    mels = torch.stack([log_mel(wave) for wave, _ in clips])
    frames = mels.shape[-1] - _SPARE
    prefix = dialogue.prefix(frames, chat)
    rows = []
    for _, truth in clips:
        row = list(prefix), [-100] * len(prefix), list(range(len(prefix))), [0] * len(prefix)
        for number, topic in enumerate(_topics(rng, questions), start=1):
            question = str(rng.choice(QUESTIONS[topic]))
            if topic == "caption" and rng.random() < 0.6:
                question = QUESTIONS[topic][0]
            asked, reply = dialogue.branch(question, answer(_told(truth, topic), topic), chat)
            size = len(asked) + len(reply)
            row[0].extend([*asked, *reply])
            # Each position learns the token after it; the last question token learns the first.
            row[1].extend([*[-100] * (len(asked) - 1), *reply, -100])
            row[2].extend(range(len(prefix), len(prefix) + size))
            row[3].extend([number] * size)
        rows.append(row)
    width = max(len(row[0]) for row in rows)
    fills = (0, -100, 0, -1)
    tokens, targets, positions, branches = (
        torch.tensor([[*row[i], *[fill] * (width - len(row[i]))] for row in rows])
        for i, fill in enumerate(fills)
    )
    attributes = tuple(attributes for _, attributes in clips)
    return Batch(mels.half(), frames, tokens, targets, positions, branches, attributes)


def _seconds(rng: np.random.Generator, brief: bool) -> float:
    shares = (0.6, 0.4, 0.0, 0.0) if brief else (0.4, 0.45, 0.12, 0.03)
    shortest, longest = ((1.0, 2.5), (2.5, 8.0), (8.0, 20.0), (20.0, 30.0))[rng.choice(4, p=shares)]
    return round(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))), 2)


class Stream(IterableDataset[Batch]):
    """An endless, seeded stream of batches, each of clips of one length and `budget` seconds.

    The first `brief` are of short clips: more of them for the same work. Batch n is the same
    whatever was drawn before it, so that training can go on at any step.
    """

    def __init__(self, parts: Parts, seed: int, start: int, budget: float, brief: int) -> None:
        self._parts, self._seed, self._start = parts, seed, start
        self._budget, self._brief = budget, brief

    def __iter__(self) -> Iterator[Batch]:
        """Draw on, for ever."""
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        stride, offset = (info.num_workers, info.id) if info else (1, 0)
        player, bank = self._parts.player(), self._parts.bank()
        dialogue = Dialogue(self._parts.tokenizer())
        step = self._start + offset
        while True:
            rng = np.random.default_rng((self._seed, step))
            seconds = _seconds(rng, step < self._brief)
            count = max(2, round(self._budget / seconds))
            clips = [draw(rng, player, bank, seconds) for _ in range(min(count, 32))]
            yield assemble(rng, dialogue, clips, chat=bool(rng.random() < 0.2), questions=1)
            step += stride


def mask(batch: Batch) -> torch.Tensor:
    """Who may look at whom: causally, at what is shared and at one's own branch."""
    branches = batch.branches
    size = branches.shape[1]
    ones = torch.ones(size, size, dtype=torch.bool, device=branches.device)
    same = branches[:, :, None] == branches[:, None, :]
    shared = branches[:, None, :] == 0
    return (ones.tril() & (same | shared))[:, None]

"""Does occlusion point at speech in music? Clips made of the examples, and where its peaks are.

    uv run --extra all python -m recipes.study.speech_in_music

Each clip is 6 s of the guitar or the djembe in `examples/`, begun at a random moment and repeated,
with 1.5 s of the speech in `examples/` mixed into it at a random moment, 3 to 9 dB louder than the
music. None of these recordings was in the embedded checkpoint's training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import qwen_audio as qa

__all__ = ["ANSWERS", "QUESTION", "MadeClip", "inside", "made_clips"]

QUESTION = "Is there speech?"
"""One of the questions about speech that the embedded checkpoint was trained on; its answers are
"Yes, someone is speaking." and "No, nobody is speaking.", and begin with these words."""
ANSWERS = ("Yes", "No")

SECONDS, SPEECH_SECONDS = 6.0, 1.5
_EXAMPLES = Path(__file__).parents[2] / "examples"
_RATE_HZ = 16_000
_FADE_SECONDS = 0.02


@dataclass(frozen=True, eq=False)
class MadeClip:
    """Music with speech in a part of it.

    Attributes:
        start_seconds, end_seconds: of the speech.
    """

    waveform: qa.Waveform
    start_seconds: float
    end_seconds: float


def made_clips(count: int = 20, seed: int = 0) -> list[MadeClip]:
    """So many clips, half of them with each music."""
    music = [qa.load_waveform(_EXAMPLES / f"{name}.flac").samples for name in ("guitar", "djembe")]
    speech = qa.load_waveform(_EXAMPLES / "speech.flac").samples
    random = np.random.default_rng(seed)
    return [_made(music[number % 2], speech, random, number) for number in range(count)]


def _made(
    music: np.ndarray, speech: np.ndarray, random: np.random.Generator, number: int
) -> MadeClip:
    size, part = round(SECONDS * _RATE_HZ), round(SPEECH_SECONDS * _RATE_HZ)
    background = np.resize(np.roll(music, -random.integers(len(music))), size)
    # A part of the speech with as much voice as most have: not mainly a pause.
    starts = np.arange(0, len(speech) - part, part // 8)
    levels = np.array([_level(speech[start : start + part]) for start in starts])
    begin = random.choice(starts[levels >= np.median(levels)])
    voice = speech[begin : begin + part].copy()
    fade = round(_FADE_SECONDS * _RATE_HZ)
    voice[:fade] *= np.linspace(0, 1, fade)
    voice[-fade:] *= np.linspace(1, 0, fade)
    place = int(random.integers(size - part))
    beside = background[place : place + part]
    voice *= 10 ** (random.uniform(3, 9) / 20) * max(_level(beside), 0.01) / _level(voice)
    mixed = background.copy()
    mixed[place : place + part] += voice
    mixed *= min(1.0, 0.98 / np.abs(mixed).max())
    waveform = qa.Waveform(mixed.astype(np.float32), f"speech in music {number}")
    return MadeClip(waveform, place / _RATE_HZ, (place + part) / _RATE_HZ)


def _level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def inside(model: qa.AudioModel, clips: list[MadeClip]) -> list[bool]:
    """For each clip, whether the middle of the window that matters most is in the speech."""
    peaks = [
        model.occlusion(clip.waveform, QUESTION, answers=ANSWERS).peak_seconds for clip in clips
    ]
    return [
        clip.start_seconds <= peak <= clip.end_seconds
        for clip, peak in zip(clips, peaks, strict=True)
    ]


def main() -> None:
    """Print how many peaks are in the speech, and how many a random window would have there."""
    clips = made_clips()
    found = inside(qa.load(dtype="float32"), clips)
    starts = np.arange(0, SECONDS - 0.49, 0.25) + 0.25
    chance = np.mean([(starts >= c.start_seconds) & (starts <= c.end_seconds) for c in clips])
    print(f"peak in the speech: {sum(found)} of {len(found)}; of a random window: {chance:.0%}")


if __name__ == "__main__":
    main()

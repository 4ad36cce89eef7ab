"""One training clip: draw what it is, make the sound, put it in a room, record it, label it."""

from dataclasses import replace

import numpy as np
from scipy import signal

from . import sounds
from .captions import Attributes
from .composition import SHORTEST_PULSE, compose
from .effects import noise
from .instruments import INSTRUMENTS, OFTEN
from .render import RATE, Player, UnplayableError, Wave, normalised, render, tilt

# Levels in dBFS (RMS over the clip). The gaps between them keep the three words apart.
LEVELS = {"quiet": (-46.0, -34.0), "moderate": (-29.0, -22.5), "loud": (-17.5, -10.0)}
RAMPS = (12.0, 26.0)  # decibels from one end to the other of a clip that grows louder or softer
SHARES = {"music": 0.66, "speech over music": 0.06, "speech": 0.1, "effect": 0.15, "silence": 0.03}
# What lasts a second is seldom a piece of music, even where it has a pitch.
BRIEF = 1.5  # seconds
BRIEF_SHARES = {
    "music": 0.24,
    "speech over music": 0.03,
    "speech": 0.1,
    "effect": 0.6,
    "silence": 0.03,
}
# A single tone is no music: what rings for half a second may as well be a coin in a game.
MOMENT = 0.8  # seconds
MOMENT_SHARES = {"speech": 0.12, "effect": 0.85, "silence": 0.03}


def _shares(seconds: float) -> dict[str, float]:
    """Of clips that long: how many are of each kind."""
    if seconds < MOMENT:
        return MOMENT_SHARES
    return BRIEF_SHARES if seconds < BRIEF else SHARES


def _room(rng: np.random.Generator, wave: Wave) -> Wave:
    decay = rng.uniform(0.1, 1.2)
    length = int(RATE * decay)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    echo = normalised(tail.astype(np.float32))
    wet = normalised(signal.oaconvolve(wave, echo)[: len(wave)].astype(np.float32))
    return normalised(wave) + wet * rng.uniform(0.03, 0.5)


def _recorded(rng: np.random.Generator, wave: Wave) -> Wave:
    """What microphones and codecs do: bandwidth, colour, coarse steps."""
    if rng.random() < 0.5:
        wave = tilt(rng, wave, 8.0)
    if rng.random() < 0.3:
        cut = float(rng.uniform(2800, 7500))
        low = signal.butter(4, cut, "low", fs=RATE, output="sos")
        wave = signal.sosfilt(low, wave)
    if rng.random() < 0.2:
        high = signal.butter(2, float(rng.uniform(60, 320)), "high", fs=RATE, output="sos")
        wave = signal.sosfilt(high, wave)
    if rng.random() < 0.06:
        peak = float(np.abs(wave).max()) + 1e-9
        steps = np.sign(wave) * np.log1p(255 * np.abs(wave) / peak) / np.log(256)
        steps = np.round(steps * 127) / 127
        wave = np.sign(steps) * peak * np.expm1(np.abs(steps) * np.log(256)) / 255
    return wave.astype(np.float32)


def _edges(rng: np.random.Generator, wave: Wave) -> Wave:
    """Recordings seldom begin and end with the sound: now and then a pause before or after."""
    if rng.random() < 0.2:
        wave = wave.copy()
        before = int(len(wave) * rng.uniform(0, 0.15))
        after = int(len(wave) * rng.uniform(0, 0.25))
        wave[:before] = 0
        wave[len(wave) - after :] = 0
        fade = min(400, after)
        if fade:
            end = len(wave) - after
            wave[end - fade : end] *= np.linspace(1, 0, fade, dtype=np.float32)
    return wave


def _level(
    rng: np.random.Generator, wave: Wave, attributes: Attributes, seconds: float
) -> tuple[Wave, Attributes]:
    """Give the clip its loudness and its trend, and say so."""
    loudness = str(rng.choice(tuple(LEVELS)))
    change = None
    if attributes.kind == "music" and seconds >= SHORTEST_PULSE:
        change = str(rng.choice(("steady", "louder", "softer"), p=(0.5, 0.25, 0.25)))
        if change != "steady":
            ends = (-float(rng.uniform(*RAMPS)), 0.0)
            ramp = np.linspace(*(ends if change == "louder" else ends[::-1]), len(wave))
            wave = (wave * 10 ** (ramp / 20)).astype(np.float32)
    target = 10 ** (float(rng.uniform(*LEVELS[loudness])) / 20)
    wave = normalised(wave) * np.float32(target / 0.1)
    hard = np.abs(wave) > 0.9  # a soft limiter, as loud recordings have
    wave[hard] = np.sign(wave[hard]) * (0.9 + 0.1 * np.tanh((np.abs(wave[hard]) - 0.9) / 0.1))
    return wave, replace(attributes, loudness=loudness, change=change)


def _silence(rng: np.random.Generator, seconds: float) -> Wave:
    length = round(seconds * RATE)
    if rng.random() < 0.4:
        return np.zeros(length, dtype=np.float32)
    level = 10 ** (rng.uniform(-100, -68) / 20)
    return noise(rng, length, float(rng.uniform(0, 2))) * np.float32(level / 0.1)


def _music(
    rng: np.random.Generator, player: Player, seconds: float, vary: bool, held_out: bool
) -> tuple[Wave, Attributes]:
    # Begin in the middle of the music now and then, as cut recordings do.
    skip = float(rng.uniform(0.2, 2.0)) if rng.random() < 0.5 else 0.0
    lead = None
    if held_out:
        candidates = [instrument for instrument in INSTRUMENTS if instrument.held_out]
        lead = candidates[rng.integers(len(candidates))]
    score = compose(rng, seconds + skip, lead, often=OFTEN if vary else {})
    try:
        wave = render(rng, player, score, seconds + skip, vary, held_out)[round(skip * RATE) :]
    except UnplayableError:
        return _music(rng, player, seconds, vary, held_out)
    attributes = score.attributes
    if seconds < SHORTEST_PULSE:
        attributes = replace(attributes, tempo=None)
    return wave[: round(seconds * RATE)], attributes


def draw(
    rng: np.random.Generator,
    player: Player,
    bank: sounds.Bank,
    seconds: float,
    kind: str | None = None,
    vary: bool = True,
    held_out: bool = False,
) -> tuple[Wave, Attributes]:
    """A clip of exactly `seconds` and everything that is true of it.

    Without a `kind` of `SHARES` it may be any. `vary` changes timbres; `held_out` has a program
    lead that is kept from training.
    """
    shares = _shares(seconds)
    kind = kind or str(rng.choice(tuple(shares), p=tuple(shares.values())))
    if kind == "silence":
        return _silence(rng, seconds), Attributes("silence")
    if kind == "speech":
        wave, attributes = sounds.speech(rng, bank, seconds), Attributes("speech", speech=True)
    elif kind == "effect":
        wave, group = sounds.effect(rng, bank, seconds)
        attributes = Attributes("effect", effect=group)
    else:
        wave, attributes = _music(rng, player, seconds, vary, held_out)
    if kind == "speech over music":
        voice = sounds.speech(rng, bank, seconds)
        wave = normalised(wave) + normalised(voice) * 10 ** (rng.uniform(-3, 9) / 20)
        attributes = replace(attributes, speech=True)
    if float(np.abs(wave).max()) < 1e-5:  # a note out of a program's reach, say
        return draw(rng, player, bank, seconds, kind, vary, held_out)
    wave = _room(rng, wave) if rng.random() < 0.5 else wave
    wave = _edges(rng, _recorded(rng, wave))
    if rng.random() < 0.5 and attributes.effect != "nature":
        hiss = noise(rng, len(wave), float(rng.uniform(0, 2)))
        wave = normalised(wave) + hiss * np.float32(10 ** (rng.uniform(-60, -16) / 20))
    return _level(rng, wave, attributes, seconds)

"""Training clips: random content, reverberation, recording conditions and loudness, with labels."""

from dataclasses import replace

import numpy as np
from scipy import signal

from . import sounds
from .captions import Attributes
from .composition import SHORTEST_PULSE, compose
from .effects import noise
from .instruments import INSTRUMENTS, LEAD_WEIGHTS
from .render import RATE, Player, UnplayableError, Wave, normalized, render, tilt

# Levels in dBFS (RMS over the clip), with gaps between the three classes.
LEVELS = {"quiet": (-46.0, -34.0), "moderate": (-29.0, -22.5), "loud": (-17.5, -10.0)}
RAMP_DB = (12.0, 26.0)  # between the ends of a clip that grows louder or softer
SHARES = {"music": 0.66, "speech over music": 0.06, "speech": 0.1, "effect": 0.15, "silence": 0.03}
# A second of audio is seldom music, even where it has a pitch.
BRIEF_SECONDS = 1.5
BRIEF_SHARES = {
    "music": 0.24,
    "speech over music": 0.03,
    "speech": 0.1,
    "effect": 0.6,
    "silence": 0.03,
}
# A single tone is not music: it could as well be a sound of a game.
MOMENT_SECONDS = 0.8
MOMENT_SHARES = {"speech": 0.12, "effect": 0.85, "silence": 0.03}


def _shares(seconds: float) -> dict[str, float]:
    """Shares of the kinds among clips of that length."""
    if seconds < MOMENT_SECONDS:
        return MOMENT_SHARES
    return BRIEF_SHARES if seconds < BRIEF_SECONDS else SHARES


def _add_reverb(rng: np.random.Generator, wave: Wave) -> Wave:
    decay = rng.uniform(0.1, 1.2)
    length = int(RATE * decay)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    echo = normalized(tail.astype(np.float32))
    wet = normalized(signal.oaconvolve(wave, echo)[: len(wave)].astype(np.float32))
    return normalized(wave) + wet * rng.uniform(0.03, 0.5)


def _degrade(rng: np.random.Generator, wave: Wave) -> Wave:
    """Simulate microphones and codecs: spectral tilt, band limits, mu-law quantization."""
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


def _add_pauses(rng: np.random.Generator, wave: Wave) -> Wave:
    """Silence the start and the end of some clips, as recordings have pauses there."""
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


def _set_loudness(
    rng: np.random.Generator, wave: Wave, attributes: Attributes, seconds: float
) -> tuple[Wave, Attributes]:
    """Scale a clip to a random loudness and trend. Returns it and attributes that state them."""
    loudness = str(rng.choice(tuple(LEVELS)))
    change = None
    if attributes.kind == "music" and seconds >= SHORTEST_PULSE:
        change = str(rng.choice(("steady", "louder", "softer"), p=(0.5, 0.25, 0.25)))
        if change != "steady":
            ends = (-float(rng.uniform(*RAMP_DB)), 0.0)
            ramp = np.linspace(*(ends if change == "louder" else ends[::-1]), len(wave))
            wave = (wave * 10 ** (ramp / 20)).astype(np.float32)
    target = 10 ** (float(rng.uniform(*LEVELS[loudness])) / 20)
    wave = normalized(wave) * np.float32(target / 0.1)
    peaks = np.abs(wave) > 0.9  # a soft limiter, as in loud recordings
    wave[peaks] = np.sign(wave[peaks]) * (0.9 + 0.1 * np.tanh((np.abs(wave[peaks]) - 0.9) / 0.1))
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
    # Half of the clips start in the middle of the music.
    skip = float(rng.uniform(0.2, 2.0)) if rng.random() < 0.5 else 0.0
    lead = None
    if held_out:
        candidates = [instrument for instrument in INSTRUMENTS if instrument.held_out]
        lead = candidates[rng.integers(len(candidates))]
    score = compose(rng, seconds + skip, lead, lead_weights=LEAD_WEIGHTS if vary else {})
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
    """A random clip of exactly `seconds` at 16 kHz, and its attributes.

    Args:
        kind: a key of `SHARES`; random if None.
        vary: vary timbres.
        held_out: let a program lead that training does not use.
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
        wave = normalized(wave) + normalized(voice) * 10 ** (rng.uniform(-3, 9) / 20)
        attributes = replace(attributes, speech=True)
    if float(np.abs(wave).max()) < 1e-5:  # such as a note outside a program's range
        return draw(rng, player, bank, seconds, kind, vary, held_out)
    wave = _add_reverb(rng, wave) if rng.random() < 0.5 else wave
    wave = _add_pauses(rng, _degrade(rng, wave))
    if rng.random() < 0.5 and attributes.effect != "nature":
        hiss = noise(rng, len(wave), float(rng.uniform(0, 2)))
        wave = normalized(wave) + hiss * np.float32(10 ** (rng.uniform(-60, -16) / 20))
    return _set_loudness(rng, wave, attributes, seconds)

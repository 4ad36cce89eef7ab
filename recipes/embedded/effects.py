"""Synthetic effects: sounds that are neither music nor speech, in the groups of the captions."""

from collections.abc import Callable

import numpy as np
from scipy import signal

from .captions import EFFECTS
from .render import RATE, Wave, as_float32, normalized

GROUPS: tuple[str, ...] = tuple(EFFECTS)


def noise(rng: np.random.Generator, length: int, slope: float) -> Wave:
    """Noise with power ∝ 1 / frequency^slope (0 white, 1 pink, 2 brown), at an RMS of 0.1."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    return normalized(np.fft.irfft(spectrum * frequency ** (-slope / 2), length).astype(np.float32))


def _envelope(rng: np.random.Generator, length: int, points: int, low: float) -> Wave:
    knots = rng.uniform(low, 1.0, max(2, points))
    time = np.linspace(0, 1, length)
    return as_float32(np.interp(time, np.linspace(0, 1, len(knots)), knots))


def _wind(rng: np.random.Generator, seconds: float) -> Wave:
    length = round(seconds * RATE)
    envelope = _envelope(rng, length, int(seconds * rng.uniform(0.3, 3)), 0.1)
    centre = float(rng.uniform(300, 5000))
    band = [centre * 0.5, min(7900, centre * 1.5)]
    colour = signal.butter(1, band, "band", fs=RATE, output="sos")
    return as_float32(
        signal.sosfilt(colour, noise(rng, length, float(rng.uniform(0, 2))) * envelope)
    )


def _engine(rng: np.random.Generator, seconds: float) -> Wave:
    length = round(seconds * RATE)
    turns = float(rng.uniform(18, 90)) * _envelope(rng, length, int(seconds), 0.7)
    phase = 2 * np.pi * np.cumsum(turns) / RATE
    hum = np.zeros(length)
    for harmonic in range(1, 24):
        hum += rng.uniform(0.1, 1) / harmonic * np.sin(harmonic * phase + harmonic)
    rough = noise(rng, length, 1.0) * (1 + rng.uniform(0.2, 0.9) * np.sin(phase))
    return as_float32(hum / 10 + rng.uniform(0.3, 2) * rough)


def _bang(rng: np.random.Generator, size: int) -> Wave:
    times = np.arange(size) / RATE
    decay = np.exp(-times * rng.uniform(3, 30))
    wave = noise(rng, size, float(rng.uniform(0, 2))) * decay
    if rng.random() < 0.3:  # with resonances, as of wood and metal
        for _ in range(int(rng.integers(1, 6))):
            turn = 2 * np.pi * float(rng.uniform(80, 3000))
            ring = np.sin(turn * times) * np.exp(-times * rng.uniform(8, 60))
            wave = wave + 0.05 * rng.uniform(0.3, 1.5) * ring
    return as_float32(wave)


def _chirp(rng: np.random.Generator, size: int) -> Wave:
    times = np.arange(size) / RATE
    depth, low = float(rng.uniform(0.05, 0.4)), float(rng.choice((150.0, 500.0, 1500.0)))
    warble = 1 + depth * np.sin(2 * np.pi * rng.uniform(3, 40) * times)
    slide = 1 + float(rng.uniform(-0.6, 0.6)) * times / max(times[-1], 0.01)
    phase = 2 * np.pi * np.cumsum(rng.uniform(low, 3.5 * low) * warble * slide) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, int(rng.integers(2, 8))))
    rough = noise(rng, size, 1.0) * float(rng.uniform(0, 4))
    return as_float32((voice + rough) * np.hanning(size))


def _pitch_curve(rng: np.random.Generator, size: int) -> Wave:
    """Pitch in Hz of a game's sound: constant, slide, jump, steps, siren or random."""
    progress = np.linspace(0, 1, size)
    start = float(np.exp(rng.uniform(np.log(90), np.log(3500))))
    shape = rng.choice(("still", "slide", "jump", "steps", "siren", "random"))
    if shape == "slide":
        octaves = rng.uniform(-4, 4) * progress ** rng.uniform(0.4, 2.5)
    elif shape == "jump":
        octaves = np.where(progress > rng.uniform(0.1, 0.4), rng.uniform(-1, 1.2), 0.0)
    elif shape == "steps":
        octaves = np.floor(progress * rng.integers(3, 16)) * rng.uniform(-0.4, 0.4)
    elif shape == "siren":
        octaves = rng.uniform(0.1, 1.0) * np.sin(2 * np.pi * rng.uniform(0.5, 30) * progress)
    elif shape == "random":
        octaves = rng.uniform(-1.5, 1.5, 64)[(progress * rng.integers(4, 63)).astype(int)]
    else:
        octaves = np.zeros(size)
    return as_float32(np.clip(start * 2.0**octaves, 30, 7000))


def _electronic(rng: np.random.Generator, size: int) -> Wave:
    """One beep, zap, sweep or blip of a simple synthesizer, as in games."""
    turn = np.cumsum(_pitch_curve(rng, size)) / RATE
    shape = rng.choice(
        ("sine", "square", "saw", "fm", "noise", "bell"), p=(0.2, 0.2, 0.1, 0.2, 0.1, 0.2)
    )
    if shape == "sine":
        wave = np.sin(2 * np.pi * turn)
    elif shape == "square":
        wave = np.where(turn % 1 < rng.uniform(0.1, 0.5), 0.5, -0.5)
    elif shape == "saw":
        wave = turn % 1 - 0.5
    elif shape == "fm":
        ratio, depth = float(rng.uniform(0.1, 7)), float(rng.uniform(0.5, 8))
        wave = np.sin(2 * np.pi * turn + depth * np.sin(2 * np.pi * ratio * turn))
    elif shape == "bell":  # coins, springs, bubbles
        ratios = np.append(1.0, rng.uniform(1.2, 9, int(rng.integers(0, 5))))
        fading = rng.uniform(2, 25) * ratios ** rng.uniform(0, 1) * np.arange(size)[:, None] / RATE
        partials = np.sin(2 * np.pi * ratios * turn[:, None]) * np.exp(-fading)
        wave = (partials * rng.uniform(0.1, 1, len(ratios))).sum(1)
    else:
        step = np.floor(turn * 8).astype(int)
        wave = rng.uniform(-0.5, 0.5, step[-1] + 1)[step]
    progress = np.linspace(0, 1, size)
    attack = float(rng.choice((0.01, 0.05, 0.3)))
    envelope = np.minimum(1, progress / attack) * (1 - progress) ** float(rng.choice((0.2, 1, 3)))
    wave = as_float32(wave * envelope)
    if rng.random() < 0.25:
        wave = as_float32(wave + noise(rng, size, float(rng.uniform(0, 2))) * rng.uniform(0, 4))
    if rng.random() < 0.25:  # a comb filter
        delay = int(rng.integers(8, 160))
        wave[delay:] = wave[delay:] + rng.choice((-0.8, 0.8)) * wave[:-delay] if size > delay else 0
    return wave


_SHORT_SOUNDS: dict[str, Callable[[np.random.Generator, int], Wave]] = {
    "impact": _bang,
    "creature": _chirp,
    "electronic": _electronic,
}


def _short_sounds(rng: np.random.Generator, group: str, seconds: float) -> Wave:
    """Bangs, beeps or chirps: one alone, one repeated, or several different ones."""
    length = round(seconds * RATE)
    wave = np.zeros(length, dtype=np.float32)
    longest = 1.5 if group == "impact" else float(rng.choice((0.25, 0.6, 1.5)))
    sizes = [int(RATE * rng.uniform(0.05, longest)) for _ in range(int(rng.choice((1, 1, 2, 4))))]
    sounds = [normalized(_SHORT_SOUNDS[group](rng, size)) for size in sizes]
    single, pause = rng.random() < 0.35, float(rng.choice((0.02, 0.15, 0.7)))
    start = int(rng.uniform(0, 0.2) * length)
    while start < length:
        sound = sounds[rng.integers(len(sounds))][: length - start]
        wave[start : start + len(sound)] += sound
        start += length if single else len(sound) + int(RATE * rng.exponential(pause))
    return wave


def synthetic_effect(rng: np.random.Generator, group: str, seconds: float) -> Wave:
    """A random synthetic effect of a group of `GROUPS`."""
    if group in _SHORT_SOUNDS:
        return normalized(_short_sounds(rng, group, seconds))
    return normalized((_wind if group == "nature" else _engine)(rng, seconds))

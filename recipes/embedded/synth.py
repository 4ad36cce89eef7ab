"""Additive synthesis of instruments with random timbres, for more variety than SoundFonts have.

Covers families with simple physics: steady harmonic partials, struck bars, plucked strings and
filtered oscillators. Every part gets a new timbre.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .composition import Note

_RATE = 16_000
_MAX_HERTZ = 7600.0  # of partials
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """Timbre of a part.

    Attributes:
        ratios: frequencies of the partials, relative to the note's.
        levels: of the partials.
        decays: decay rates of the partials, in 1 / seconds.
        attack: seconds.
        ring: seconds of release.
        detuned: detuning of parallel oscillators, in cents.
        modulation: relative frequency and index of a modulating oscillator.
        click: level of noise at the start.
    """

    ratios: Floats
    levels: Floats
    decays: Floats
    attack: float
    ring: float
    detuned: tuple[float, ...] = (0.0,)
    modulation: tuple[float, float] = (0.0, 0.0)
    click: float = 0.0


def _note(rng: np.random.Generator, voice: Voice, note: Note) -> NDArray[np.float32]:
    times = np.arange(round((note.length + voice.ring) * _RATE), dtype=np.float32) / _RATE
    pitch = 440.0 * 2.0 ** ((note.key - 69) / 12)
    audible = voice.ratios * pitch < _MAX_HERTZ
    # Plain numbers beside float32 samples: twice as fast as float64.
    partials = np.stack([voice.ratios, voice.levels, voice.decays], 1)[audible].tolist()
    wave = np.zeros(len(times), dtype=np.float32)
    ratio_of_modulator, index = voice.modulation
    modulation = (
        index * np.exp(-3 * times) * np.sin(2 * np.pi * ratio_of_modulator * pitch * times)
        if index
        else 0.0
    )
    for cents in voice.detuned:
        turn = 2 * np.pi * pitch * 2.0 ** (cents / 1200) * times
        for ratio, level, decay in partials:
            phase = float(rng.uniform(0, 2 * np.pi))
            tone = np.sin(ratio * turn + phase + modulation)
            wave += level * (tone * np.exp(-decay * times) if decay else tone)
    if voice.click:
        size = min(len(times), int(0.012 * _RATE))
        wave[:size] += voice.click * rng.standard_normal(size) * np.linspace(1, 0, size)
    rise = np.minimum(1.0, times / voice.attack)
    release = np.clip((times - note.length) / max(voice.ring, 0.01), 0, 1)
    return (wave * rise * (1 - release) ** 2 * note.velocity**1.5).astype(np.float32)


def _harmonics(count: int) -> Floats:
    return np.arange(1, count + 1, dtype=np.float64)


def _detunings(rng: np.random.Generator, most: float) -> tuple[float, ...]:
    """Detuning of one to three oscillators, in cents."""
    return tuple(float(c) for c in rng.normal(0, rng.uniform(0.2, 1) * most, rng.integers(1, 4)))


def _organ(rng: np.random.Generator) -> Voice:
    stops = np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])
    levels = rng.uniform(0, 1, len(stops)) ** 1.5 * (rng.random(len(stops)) < 0.7)
    levels[1] = max(levels[1], 0.5)
    decays = np.where(rng.random(len(stops)) < 0.1, rng.uniform(3, 8), 0.0)  # percussion
    click = float(rng.choice((0.0, 0.1, 0.4)))
    ring = float(rng.uniform(0.02, 0.2))
    return Voice(stops, levels, decays, float(rng.uniform(0.004, 0.06)), ring, (0.0,), click=click)


def _bar(rng: np.random.Generator, ratios: tuple[float, ...], longest: float) -> Voice:
    """A struck bar: few partials, of which the higher ones decay faster."""
    varied_ratios = np.array(ratios) * np.array([1.0, *rng.normal(1, 0.02, len(ratios) - 1)])
    levels = np.array([1.0, *rng.uniform(0, 0.5, len(ratios) - 1)])
    decays = rng.uniform(1, 4) / longest * np.array(ratios) ** rng.uniform(0.3, 1.0)
    return Voice(
        varied_ratios, levels, decays, 0.002, longest, (0.0,), click=float(rng.uniform(0, 0.3))
    )


def _bar_ratios(rng: np.random.Generator) -> tuple[float, ...]:
    """Partials of free bars, tuned bars or comb teeth, or random ones."""
    random_ratios = sorted(rng.uniform(1.9, 12, int(rng.integers(1, 6))).tolist())
    known = ((2.76, 5.4, 8.9), (2.0, 3.0, 6.3), (6.27, 17.5), random_ratios)
    return (1.0, *known[rng.integers(len(known))])


def _string(
    rng: np.random.Generator,
    slope: tuple[float, float],
    decay: tuple[float, float],
    damping: tuple[float, float],
    ring: float,
    pickup: bool = False,
    attack: float = 0.002,
) -> Voice:
    """A plucked string with a random plucking point and, if `pickup`, a random pickup position."""
    k = _harmonics(28)
    levels = np.abs(np.sin(np.pi * k * rng.uniform(0.06, 0.4))) / k ** rng.uniform(*slope)
    if pickup:
        levels *= np.abs(np.sin(np.pi * k * rng.uniform(0.06, 0.3)))
    decays = rng.uniform(*decay) + rng.uniform(*damping) * k**1.5
    stiff = k * np.sqrt(1 + rng.uniform(0, 4e-4) * k**2)
    pairs = (0.0,) if rng.random() < 0.7 else (0.0, float(rng.uniform(2, 12)))
    return Voice(stiff, levels, decays, attack, ring, pairs, click=float(rng.uniform(0, 0.15)))


def _tines(rng: np.random.Generator) -> Voice:
    ratios = np.array([1.0, 2.0, float(rng.uniform(3, 4)), float(rng.uniform(6.5, 14))])
    levels = np.array([1.0, rng.uniform(0, 0.5), rng.uniform(0, 0.2), rng.uniform(0, 0.25)])
    decays = rng.uniform(0.5, 2) * np.array([1.0, 1.5, 4.0, 10.0])
    index = float(rng.uniform(0, 2.0))
    return Voice(ratios, levels, decays, 0.003, 0.15, _detunings(rng, 6), (1.0, index))


def _oscillators(rng: np.random.Generator, attack: tuple[float, float], ring: float) -> Voice:
    """Sawtooth, pulse or triangle behind a filter, several slightly out of tune."""
    k = _harmonics(30)
    shape = rng.choice(("saw", "pulse", "triangle"))
    if shape == "pulse":
        levels = np.abs(np.sin(np.pi * k * rng.uniform(0.1, 0.5))) / k
    else:
        levels = 1 / k if shape == "saw" else (k % 2) / k**2
    cutoff, steep = float(np.exp(rng.uniform(0.5, 3.3))), float(rng.uniform(1, 4))
    levels = levels / (1 + (k / cutoff) ** (2 * steep)) ** 0.5
    levels *= 1 + rng.uniform(0, 3) * np.exp(-(((k - cutoff) / (0.2 * cutoff + 0.5)) ** 2))
    decays = np.full(len(k), rng.choice((0.0, 0.0, 1.0, 4.0)))
    decays = decays + rng.choice((0.0, 0.3)) * k ** rng.uniform(0, 1)
    if rng.random() < 0.35:  # another oscillator, an octave or a fifth below
        below = float(rng.choice((1 / 2, 2 / 3)))
        k, decays = np.append(k, below * k), np.append(decays, decays)
        levels = np.append(levels, rng.uniform(0.3, 1.2) * levels)
    return Voice(k, levels, decays, float(rng.uniform(*attack)), ring, _detunings(rng, 14))


_VOICES: dict[str, Callable[[np.random.Generator], Voice]] = {
    "organ": _organ,
    "glockenspiel": lambda rng: _bar(rng, _bar_ratios(rng), float(rng.uniform(0.4, 2.0))),
    "vibraphone": lambda rng: _bar(rng, (1.0, 3.98, 10.7), 1.5),
    "marimba": lambda rng: _bar(rng, (1.0, 3.95, 9.6), 0.15),
    "electric piano": _tines,
    "acoustic guitar": lambda rng: _string(rng, (0.9, 1.6), (1, 4), (0.02, 0.3), 0.2),
    "clean electric guitar": lambda rng: _string(rng, (0.6, 1.5), (0.5, 3), (0.02, 0.4), 0.1, True),
    "banjo": lambda rng: _string(rng, (0.4, 1.0), (5, 11), (0.02, 0.2), 0.1),
    "harpsichord": lambda rng: _string(rng, (0.2, 0.8), (1, 4), (0.01, 0.1), 0.08),
    "harp": lambda rng: _string(rng, (1.2, 2.2), (0.8, 2), (0.05, 0.4), 0.9),
    "bass": lambda rng: _string(
        rng, (0.9, 2.0), (0.5, 3), (0.02, 0.3), 0.08, True, float(rng.choice((0.002, 0.01, 0.03)))
    ),
    "synth bass": lambda rng: _oscillators(rng, (0.002, 0.02), 0.06),
    "synth lead": lambda rng: _oscillators(rng, (0.003, 0.04), 0.1),
    "synth pad": lambda rng: _oscillators(rng, (0.005, 0.5), float(rng.choice((0.1, 0.6)))),
}
NAMES: tuple[str, ...] = tuple(_VOICES)


def play(
    rng: np.random.Generator, name: str, notes: tuple[Note, ...], seconds: float
) -> NDArray[np.float32]:
    """Audio of notes at 16 kHz, with a random timbre of an instrument of `NAMES`."""
    voice, total = _VOICES[name](rng), np.zeros(round(seconds * _RATE))
    for note in notes:
        start = round(note.start * _RATE)
        wave = _note(rng, voice, note)[: max(0, len(total) - start)]
        total[start : start + len(wave)] += wave
    tremolo = {"organ": 0.5, "vibraphone": 0.5, "electric piano": 0.3}.get(name, 0.1)
    if rng.random() < tremolo:  # of a rotating loudspeaker or a motor
        wobble = np.sin(2 * np.pi * rng.uniform(0.7, 7.5) * np.arange(len(total)) / _RATE)
        total *= 1 + rng.uniform(0.05, 0.5) * wobble
    return total.astype(np.float32)

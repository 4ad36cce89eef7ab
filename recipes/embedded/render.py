"""Scores to sound: SoundFonts played part by part, each part's timbre varied on its own."""

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
import tinysoundfont
from numpy.typing import NDArray
from scipy import ndimage, signal

from . import synth
from .composition import Note, Part, Score
from .instruments import VARIANTS, Instrument

Wave = NDArray[np.float32]
RATE = 16_000
_RENDER_RATE = 32_000
_DRUM_KITS = (0, 8, 16, 24, 25, 32, 40)
_STILL = 1e-4
_MADE = 0.25  # of the parts that could be made from scratch are
_MOSTLY_MADE = {  # whose sounds differ more than those that SoundFonts have
    "glockenspiel": 0.6,
    "organ": 0.4,
    "clean electric guitar": 0.45,
    "bass": 0.4,
    "synth lead": 0.6,
    "synth pad": 0.6,
}
_DRIVEN = 0.12  # of parts are overdriven a little
_OVERDRIVEN = 0.35  # of organs: a rotating loudspeaker's amplifier is part of the sound
_DOUBLED = 0.12  # of the others sound twice, slightly out of tune: choruses
_WORN = 0.25  # of the pianos do: they are hard to keep in tune
_MUTED = {"trumpet": 0.6, "trombone": 0.5, "brass section": 0.3, "French horn": 0.2}  # of parts
_VIBRATO = ("strings", "voices", "brass", "reeds", "flutes")


class UnplayableError(Exception):
    """A part that a SoundFont has no sound for; the score is drawn again."""


def as_wave(values: NDArray[np.floating]) -> Wave:
    """The same samples in the one type that waves have."""
    return np.asarray(values, dtype=np.float32)


def normalised(wave: Wave) -> Wave:
    """The wave at an RMS of 0.1, so that gains between parts mean what they say."""
    level = math.sqrt(float(np.dot(wave, wave)) / max(1, len(wave)))
    return wave if level < 1e-7 else (wave * (0.1 / level)).astype(np.float32)


class Player(Protocol):
    """Whatever plays notes on a General MIDI program."""

    names: tuple[str, ...]

    def play(
        self,
        font: str,
        program: int,
        notes: tuple[Note, ...],
        seconds: float,
        shift: float = 0.0,
        bank: int = 0,
    ) -> Wave:
        """The notes on one program (a drum kit where `program` is negative), at 16 kHz."""


class SoundFonts:
    """SoundFonts held open, and the notes that they play."""

    def __init__(self, fonts: dict[str, Path]) -> None:
        self._synth = tinysoundfont.Synth(samplerate=_RENDER_RATE)
        self._fonts = {name: self._synth.sfload(str(path)) for name, path in fonts.items()}
        self.names = tuple(fonts)

    def play(
        self,
        font: str,
        program: int,
        notes: tuple[Note, ...],
        seconds: float,
        shift: float = 0.0,
        bank: int = 0,
    ) -> Wave:
        """The notes on one program (a drum kit where `program` is negative), at 16 kHz.

        `shift` moves the resonances of the samples by semitones and leaves the pitch alone: the
        notes are played `shift` lower and the result is read faster, or the other way round.
        """
        speed = 2.0 ** (shift / 12)
        drums = program < 0
        number = -program - 1 if drums else program
        self._synth.program_select(
            0, self._fonts[font], 128 if drums else bank, number, is_drums=drums
        )
        events: list[tuple[float, int, float]] = []
        for note in notes:
            key = note.key if drums else round(note.key - shift)
            events.append((note.start * speed, key, note.velocity))
            events.append(((note.start + note.length) * speed, key, 0.0))
        events.sort(key=lambda event: (event[0], event[2]))
        total = math.ceil(seconds * speed * _RENDER_RATE)
        out = np.zeros(total * 2, dtype=np.float32)
        at = 0
        for start, key, velocity in events:
            until = min(total, int(start * _RENDER_RATE))
            if until > at:
                self._synth.generate_simple(until - at, out[2 * at : 2 * until].data.cast("B"))
                at = until
            if velocity > 0:
                self._synth.noteon(0, key, int(127 * velocity))
            else:
                self._synth.noteoff(0, key)
        if total > at:
            self._synth.generate_simple(total - at, out[2 * at :].data.cast("B"))
        self._synth.sounds_off(0)
        mono = (out[0::2] + out[1::2]) / 2
        return fitted(soxr.resample(mono, _RENDER_RATE * speed, RATE, quality="MQ"), seconds)


def fitted(wave: Wave, seconds: float) -> Wave:
    """The wave cut or padded to `seconds`."""
    length = round(seconds * RATE)
    return as_wave(np.pad(wave, (0, max(0, length - len(wave))))[:length])


def tilt(rng: np.random.Generator, wave: Wave, amount: float) -> Wave:
    """A random smooth equaliser: gains of up to `amount` decibels at points along the spectrum."""
    points = np.array([0, 150, 400, 1000, 2400, 5000, 8000]) / (RATE / 2)
    gains = 10 ** (np.clip(rng.normal(0, amount / 2, len(points)), -amount, amount) / 20)
    taps = signal.firwin2(129, points, gains)
    return as_wave(signal.oaconvolve(wave, taps, mode="same"))


def _vibrato(rng: np.random.Generator, wave: Wave) -> Wave:
    """The pitch wavering as players let it: 10 to 45 cents, 4 to 7 times a second."""
    times = np.arange(len(wave))
    turn = 2 * np.pi * float(rng.uniform(4, 7)) / RATE
    depth = (2 ** (rng.uniform(10, 45) / 1200) - 1) / turn
    return as_wave(np.interp(times + depth * np.sin(turn * times), times, wave))


def _reshaped(rng: np.random.Generator, wave: Wave) -> Wave:
    """Notes that fade faster or slower, as other bodies and players let them."""
    width = int(rng.uniform(0.01, 0.05) * RATE)
    power = ndimage.uniform_filter1d(wave * wave, width)
    level = np.maximum(np.sqrt(np.maximum(power, 0) / (power.max() + 1e-12)), 0.01)
    return as_wave(wave * level ** rng.uniform(-0.4, 0.6))


def _hertz(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _peak(
    rng: np.random.Generator,
    wave: Wave,
    hertz: tuple[float, float],
    quality: tuple[float, float],
    decibels: tuple[float, float],
) -> Wave:
    """One resonance, drawn between these bounds."""
    b, a = signal.iirpeak(_hertz(rng, *hertz), float(rng.uniform(*quality)), fs=RATE)
    gain = 10 ** (float(rng.uniform(*decibels)) / 20) - 1
    return as_wave(wave + gain * signal.lfilter(b, a, wave))


def _resonant(rng: np.random.Generator, wave: Wave) -> Wave:
    """Up to three resonances, as bodies and small loudspeakers have."""
    for _ in range(int(rng.integers(1, 4))):
        wave = _peak(rng, wave, (245, 5430), (1, 8), (3, 16))
    return wave


def _muted(rng: np.random.Generator, wave: Wave) -> Wave:
    """A mute in the bell: little is left of the low partials, and a narrow band stands out."""
    cut = _hertz(rng, 400, 1800)
    high = signal.butter(int(rng.integers(1, 3)), cut, "high", fs=RATE, output="sos")
    wave = as_wave(signal.sosfilt(high, wave))
    for _ in range(int(rng.integers(1, 3))):
        wave = _peak(rng, wave, (900, 4500), (1, 6), (3, 15))
    return wave


def _varied(rng: np.random.Generator, wave: Wave, instrument: Instrument | None) -> Wave:
    """One part with another body: mute, vibrato, equaliser, resonances, tremolo, drive."""
    family = instrument.family if instrument else None
    if instrument and rng.random() < _MUTED.get(instrument.name, 0.0):
        wave = _muted(rng, wave)
    if family is not None and rng.random() < 0.25:
        wave = _resonant(rng, wave)
    if family in _VIBRATO and rng.random() < 0.4:
        wave = _vibrato(rng, wave)
    if rng.random() < 0.3:
        wave = _reshaped(rng, wave)
    if rng.random() < 0.7:
        wave = tilt(rng, wave, 12.0)
    if rng.random() < 0.15:
        times = np.arange(len(wave)) / RATE
        depth, rate = rng.uniform(0.1, 0.4), rng.uniform(3, 7)
        wave = as_wave(wave * (1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate * times))))
    if rng.random() < (_OVERDRIVEN if family == "organ" else _DRIVEN):
        drive = rng.uniform(0.5, 2.0)
        wave = as_wave(np.tanh(wave * drive * 5) / 5)
    return wave


def _program(rng: np.random.Generator, part: Part, font: str, held_out: bool) -> tuple[int, int]:
    """A bank and a program of it."""
    if part.instrument is None:
        return 0, -1 - int(rng.choice(_DRUM_KITS))
    if held_out and part.instrument.held_out:
        return 0, int(rng.choice(part.instrument.held_out))
    variants = VARIANTS.get(font, {}).get(part.instrument.name, ())
    if variants and rng.random() < 0.35:
        bank, program = variants[rng.integers(len(variants))]
        return bank, program
    return 0, int(rng.choice(part.instrument.programs))


def _apart(rng: np.random.Generator, shift: float) -> float:
    """4 to 30 cents, towards the semitone that notes shifted by `shift` are rounded to."""
    cents = float(rng.uniform(4, 30))
    return (-cents if shift > round(shift) else cents) / 100


def _part(
    rng: np.random.Generator, player: Player, part: Part, seconds: float, vary: bool, held: bool
) -> Wave:
    layers = 2 if vary and part.instrument is not None and rng.random() < 0.25 else 1
    total = np.zeros(round(seconds * RATE), dtype=np.float32)
    for _ in range(layers):
        font = str(rng.choice(player.names))
        shift = float(rng.normal(0, 2.2)) if vary and rng.random() < 0.7 else 0.0
        bank, program = _program(rng, part, font, held)
        made = part.instrument is not None and part.instrument.name in synth.NAMES
        if vary and made and rng.random() < _MOSTLY_MADE.get(part.instrument.name, _MADE):
            wave = synth.play(rng, part.instrument.name, part.notes, seconds)
        else:
            shift = float(np.clip(shift, -5, 5))
            wave = player.play(font, program, part.notes, seconds, shift, bank)
            twice = _WORN if part.instrument and part.instrument.name == "piano" else _DOUBLED
            if vary and part.instrument is not None and rng.random() < twice:
                beside = shift + _apart(rng, shift)
                wave = wave + player.play(font, program, part.notes, seconds, beside, bank)
        if np.abs(wave).max() < _STILL and part.instrument is None:
            wave = player.play(font, -1, part.notes, seconds)
        if np.abs(wave).max() < _STILL:
            raise UnplayableError(f"{font} has nothing for {part.instrument or 'the drums'}")
        total += normalised(wave) * float(rng.uniform(0.3, 1.0))
    return normalised(_varied(rng, total, part.instrument) if vary else total)


def render(
    rng: np.random.Generator,
    player: Player,
    score: Score,
    seconds: float,
    vary: bool = True,
    held_out: bool = False,
) -> Wave:
    """The score as sound, the lead at an RMS of 0.1 (on its held-out programs if `held_out`)."""
    total = np.zeros(round(seconds * RATE), dtype=np.float32)
    for order, part in enumerate(score.parts):
        wave = _part(rng, player, part, seconds, vary, held_out and order == 0)
        total += wave * 10 ** (part.gain / 20)
    return total

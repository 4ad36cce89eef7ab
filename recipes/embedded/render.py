"""Render scores to audio: SoundFonts or synthesis for each part, with varied timbres."""

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
_SILENT_PEAK = 1e-4
# Probabilities.
_SYNTHESIZED = 0.25  # of synthesis, for instruments that `synth` has
_SYNTHESIZED_BY_NAME = {  # instruments that vary more than the samples of SoundFonts
    "glockenspiel": 0.6,
    "organ": 0.4,
    "clean electric guitar": 0.45,
    "bass": 0.4,
    "synth lead": 0.6,
    "synth pad": 0.6,
}
_OVERDRIVE = 0.12
_ORGAN_OVERDRIVE = 0.35  # organs are often played through an overdriven amplifier
_DETUNED_DOUBLE = 0.12  # of a second, slightly detuned copy
_PIANO_DETUNED_DOUBLE = 0.25  # pianos are often out of tune
_MUTE = {"trumpet": 0.6, "trombone": 0.5, "brass section": 0.3, "French horn": 0.2}
_VIBRATO = ("strings", "voices", "brass", "reeds", "flutes")


class UnplayableError(Exception):
    """A SoundFont has no sound for a part; the clip is generated again."""


def as_float32(values: NDArray[np.floating]) -> Wave:
    """The array in float32."""
    return np.asarray(values, dtype=np.float32)


def normalized(wave: Wave) -> Wave:
    """The wave at an RMS of 0.1; a silent one unchanged."""
    level = math.sqrt(float(np.dot(wave, wave)) / max(1, len(wave)))
    return wave if level < 1e-7 else (wave * (0.1 / level)).astype(np.float32)


class Player(Protocol):
    """Interface of whatever plays notes on General MIDI programs."""

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
        """Audio of notes on one program (a drum kit where `program` is negative), at 16 kHz."""


class SoundFonts:
    """A `Player` of SoundFont files."""

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
        """Audio of notes on one program (a drum kit where `program` is negative), at 16 kHz.

        Args:
            shift: semitones by which the samples' resonances move, at the same pitch. Notes are
                played `shift` lower and resampled to the higher pitch.
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
        stereo = np.zeros(total * 2, dtype=np.float32)
        position = 0
        for start, key, velocity in events:
            end = min(total, int(start * _RENDER_RATE))
            if end > position:
                self._synth.generate_simple(
                    end - position, stereo[2 * position : 2 * end].data.cast("B")
                )
                position = end
            if velocity > 0:
                self._synth.noteon(0, key, int(127 * velocity))
            else:
                self._synth.noteoff(0, key)
        if total > position:
            self._synth.generate_simple(total - position, stereo[2 * position :].data.cast("B"))
        self._synth.sounds_off(0)
        mono = (stereo[0::2] + stereo[1::2]) / 2
        return fit_length(soxr.resample(mono, _RENDER_RATE * speed, RATE, quality="MQ"), seconds)


def fit_length(wave: Wave, seconds: float) -> Wave:
    """The wave cut or padded to `seconds`."""
    length = round(seconds * RATE)
    return as_float32(np.pad(wave, (0, max(0, length - len(wave))))[:length])


def tilt(rng: np.random.Generator, wave: Wave, amount: float) -> Wave:
    """Apply a random smooth equalizer with gains of at most ±`amount` dB."""
    points = np.array([0, 150, 400, 1000, 2400, 5000, 8000]) / (RATE / 2)
    gains = 10 ** (np.clip(rng.normal(0, amount / 2, len(points)), -amount, amount) / 20)
    taps = signal.firwin2(129, points, gains)
    return as_float32(signal.oaconvolve(wave, taps, mode="same"))


def _vibrato(rng: np.random.Generator, wave: Wave) -> Wave:
    """Apply vibrato of 10 to 45 cents at 4 to 7 Hz."""
    times = np.arange(len(wave))
    turn = 2 * np.pi * float(rng.uniform(4, 7)) / RATE
    depth = (2 ** (rng.uniform(10, 45) / 1200) - 1) / turn
    return as_float32(np.interp(times + depth * np.sin(turn * times), times, wave))


def _reshape_decay(rng: np.random.Generator, wave: Wave) -> Wave:
    """Make notes decay faster or slower."""
    width = int(rng.uniform(0.01, 0.05) * RATE)
    power = ndimage.uniform_filter1d(wave * wave, width)
    level = np.maximum(np.sqrt(np.maximum(power, 0) / (power.max() + 1e-12)), 0.01)
    return as_float32(wave * level ** rng.uniform(-0.4, 0.6))


def _log_uniform_hertz(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _add_resonance(
    rng: np.random.Generator,
    wave: Wave,
    hertz: tuple[float, float],
    quality: tuple[float, float],
    decibels: tuple[float, float],
) -> Wave:
    """Apply a random resonance within these bounds."""
    b, a = signal.iirpeak(_log_uniform_hertz(rng, *hertz), float(rng.uniform(*quality)), fs=RATE)
    gain = 10 ** (float(rng.uniform(*decibels)) / 20) - 1
    return as_float32(wave + gain * signal.lfilter(b, a, wave))


def _add_resonances(rng: np.random.Generator, wave: Wave) -> Wave:
    """Apply up to three resonances, as of instrument bodies and small loudspeakers."""
    for _ in range(int(rng.integers(1, 4))):
        wave = _add_resonance(rng, wave, (245, 5430), (1, 8), (3, 16))
    return wave


def _mute(rng: np.random.Generator, wave: Wave) -> Wave:
    """Simulate a brass mute: attenuate low partials, emphasize a narrow band."""
    cut = _log_uniform_hertz(rng, 400, 1800)
    high = signal.butter(int(rng.integers(1, 3)), cut, "high", fs=RATE, output="sos")
    wave = as_float32(signal.sosfilt(high, wave))
    for _ in range(int(rng.integers(1, 3))):
        wave = _add_resonance(rng, wave, (900, 4500), (1, 6), (3, 15))
    return wave


def _vary_timbre(rng: np.random.Generator, wave: Wave, instrument: Instrument | None) -> Wave:
    """Vary a part's timbre: mute, resonances, vibrato, decay, equalizer, tremolo, overdrive."""
    family = instrument.family if instrument else None
    if instrument and rng.random() < _MUTE.get(instrument.name, 0.0):
        wave = _mute(rng, wave)
    if family is not None and rng.random() < 0.25:
        wave = _add_resonances(rng, wave)
    if family in _VIBRATO and rng.random() < 0.4:
        wave = _vibrato(rng, wave)
    if rng.random() < 0.3:
        wave = _reshape_decay(rng, wave)
    if rng.random() < 0.7:
        wave = tilt(rng, wave, 12.0)
    if rng.random() < 0.15:
        times = np.arange(len(wave)) / RATE
        depth, rate = rng.uniform(0.1, 0.4), rng.uniform(3, 7)
        wave = as_float32(wave * (1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate * times))))
    if rng.random() < (_ORGAN_OVERDRIVE if family == "organ" else _OVERDRIVE):
        drive = rng.uniform(0.5, 2.0)
        wave = as_float32(np.tanh(wave * drive * 5) / 5)
    return wave


def _program(rng: np.random.Generator, part: Part, font: str, held_out: bool) -> tuple[int, int]:
    """Random bank and program of a part's instrument in a SoundFont."""
    if part.instrument is None:
        return 0, -1 - int(rng.choice(_DRUM_KITS))
    if held_out and part.instrument.held_out:
        return 0, int(rng.choice(part.instrument.held_out))
    variants = VARIANTS.get(font, {}).get(part.instrument.name, ())
    if variants and rng.random() < 0.35:
        bank, program = variants[rng.integers(len(variants))]
        return bank, program
    return 0, int(rng.choice(part.instrument.programs))


def _detuning(rng: np.random.Generator, shift: float) -> float:
    """4 to 30 cents, in semitones, in the direction in which `shift` is rounded."""
    cents = float(rng.uniform(4, 30))
    return (-cents if shift > round(shift) else cents) / 100


def _render_part(
    rng: np.random.Generator, player: Player, part: Part, seconds: float, vary: bool, held_out: bool
) -> Wave:
    layers = 2 if vary and part.instrument is not None and rng.random() < 0.25 else 1
    total = np.zeros(round(seconds * RATE), dtype=np.float32)
    for _ in range(layers):
        font = str(rng.choice(player.names))
        shift = float(rng.normal(0, 2.2)) if vary and rng.random() < 0.7 else 0.0
        bank, program = _program(rng, part, font, held_out)
        synthesizable = part.instrument is not None and part.instrument.name in synth.NAMES
        if (
            vary
            and synthesizable
            and rng.random() < _SYNTHESIZED_BY_NAME.get(part.instrument.name, _SYNTHESIZED)
        ):
            wave = synth.play(rng, part.instrument.name, part.notes, seconds)
        else:
            shift = float(np.clip(shift, -5, 5))
            wave = player.play(font, program, part.notes, seconds, shift, bank)
            piano = part.instrument is not None and part.instrument.name == "piano"
            probability = _PIANO_DETUNED_DOUBLE if piano else _DETUNED_DOUBLE
            if vary and part.instrument is not None and rng.random() < probability:
                detuned = shift + _detuning(rng, shift)
                wave = wave + player.play(font, program, part.notes, seconds, detuned, bank)
        if np.abs(wave).max() < _SILENT_PEAK and part.instrument is None:
            wave = player.play(font, -1, part.notes, seconds)
        if np.abs(wave).max() < _SILENT_PEAK:
            raise UnplayableError(f"{font} has no sound for {part.instrument or 'the drums'}")
        total += normalized(wave) * float(rng.uniform(0.3, 1.0))
    return normalized(_vary_timbre(rng, total, part.instrument) if vary else total)


def render(
    rng: np.random.Generator,
    player: Player,
    score: Score,
    seconds: float,
    vary: bool = True,
    held_out: bool = False,
) -> Wave:
    """Audio of a score at 16 kHz, with the lead at an RMS of 0.1.

    Args:
        vary: vary timbres.
        held_out: play the lead on its held-out programs.

    Raises:
        UnplayableError: if a SoundFont has no sound for a part.
    """
    total = np.zeros(round(seconds * RATE), dtype=np.float32)
    for index, part in enumerate(score.parts):
        wave = _render_part(rng, player, part, seconds, vary, held_out and index == 0)
        total += wave * 10 ** (part.gain / 20)
    return total

"""Random musical scores and their attributes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from .captions import Attributes
from .instruments import BACKINGS, BY_NAME, INSTRUMENTS, Instrument

BEATS_PER_MINUTE = {"slow": (50.0, 74.0), "moderate": (94.0, 116.0), "fast": (142.0, 184.0)}
FREE_RHYTHM = 0.2  # share of solos without a pulse
SHORTEST_PULSE = 2.5  # seconds; shorter clips have neither tempo nor trend

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
_PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (5, 3, 0, 4), (0, 4, 5, 3), (1, 4, 0, 0), (0, 3, 0, 4))
# Rhythmic cells: note lengths in beats. All have half beats and about three notes in two beats, so
# that the shortest notes and their density tell a tempo from its half and its double.
_CELLS = (
    (0.5, 0.5, 1.0),
    (1.0, 0.5, 0.5),
    (0.5, 1.0, 0.5),
    (0.5, 0.5, 1.0, 1.0, 0.5, 0.5),
    (1.5, 0.5),
    (0.5, 0.5, 0.5, 0.5),
)
_KICK, _SNARE, _CLAP, _SIDE = (35, 36), (38, 40), (39,), (37,)
_HATS, _CYMBALS, _TOMS = (42, 44, 46), (49, 51, 57, 59), (41, 43, 45, 47, 48, 50)
_HAND = (54, 56, 60, 61, 62, 63, 64, 69, 70, 75, 76, 77)


@dataclass(frozen=True)
class Note:
    """A note: start and length in seconds, MIDI key, velocity from 0 to 1."""

    start: float
    length: float
    key: int
    velocity: float


@dataclass(frozen=True)
class Part:
    """Notes of one instrument. `instrument` is None for drums; `gain` is in decibels."""

    instrument: Instrument | None
    notes: tuple[Note, ...]
    gain: float


@dataclass(frozen=True)
class Score:
    """Parts, with the lead (or the drums) first, and the attributes of the music."""

    parts: tuple[Part, ...]
    attributes: Attributes


@dataclass(frozen=True)
class _Style:
    """What the parts of a score share: tempo, key, harmony and dynamics.

    `beat` is in seconds, `bar` in beats, `touch` the mean velocity; `free` is without a pulse.
    """

    beat: float
    seconds: float
    tonic: int
    scale: tuple[int, ...]
    progression: tuple[int, ...]
    bar: int
    touch: float
    free: bool

    def key_of(self, step: int) -> int:
        """MIDI key of a scale step."""
        octave, index = divmod(step, len(self.scale))
        return self.tonic + 12 * octave + self.scale[index]

    def root(self, beat: float) -> int:
        """Scale step of the chord's root."""
        return self.progression[int(beat // self.bar) % len(self.progression)]


def _register(rng: np.random.Generator, instrument: Instrument) -> tuple[str, int]:
    """Random register within the instrument's range, and a key at its centre."""
    keys = {"low": (0, 49), "middle": (56, 68), "high": (75, 127)}
    margin = min(5, (instrument.high - instrument.low) // 4)
    reachable = {
        name: (max(low, instrument.low + margin), min(high, instrument.high - margin))
        for name, (low, high) in keys.items()
    }
    names = [name for name, (low, high) in reachable.items() if low <= high]
    weights = np.array([reachable[name][1] - reachable[name][0] + 3.0 for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    return name, int(rng.integers(reachable[name][0], reachable[name][1] + 1))


def _rhythm(rng: np.random.Generator, style: _Style) -> list[tuple[float, float]]:
    if style.free:
        return _free_rhythm(rng, style)
    motif = [length for _ in range(2) for length in _CELLS[rng.integers(len(_CELLS))]]
    at, spans = 0.0, []
    while at * style.beat < style.seconds:
        if rng.random() < 0.3:
            motif = [length for _ in range(2) for length in _CELLS[rng.integers(len(_CELLS))]]
        for length in motif:
            spans.append((at, length))
            at += length
    return spans


def _free_rhythm(rng: np.random.Generator, style: _Style) -> list[tuple[float, float]]:
    """Starts and lengths in beats without a pulse, for music without a tempo."""
    at, spans = 0.0, []
    typical = float(rng.uniform(0.3, 4.0)) / style.beat
    while at * style.beat < style.seconds:
        length = typical * float(np.exp(rng.normal(0, 0.6)))
        spans.append((at, length))
        at += length
    return spans


def _note(
    rng: np.random.Generator, style: _Style, at: float, beats: float, key: int, length_factor: float
) -> Note:
    accent = 0.12 if at % style.bar == 0 else 0.0
    velocity = float(np.clip(style.touch + accent + rng.normal(0, 0.1), 0.25, 1.0))
    start = max(0.0, at * style.beat + rng.normal(0, 0.006))
    return Note(start, max(0.06, beats * style.beat * length_factor), key, velocity)


def _octave_within(key: int, low: int, high: int) -> int:
    while key < low:
        key += 12
    while key > high:
        key -= 12
    return max(low, min(high, key))


def _melody(
    rng: np.random.Generator, style: _Style, instrument: Instrument, centre: int
) -> tuple[Note, ...]:
    low, high = max(instrument.low, centre - 7), min(instrument.high, centre + 7)
    length_factor = float(rng.uniform(0.5, 1.15))
    step, notes = 0, []
    for at, beats in _rhythm(rng, style):
        step += int(rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3)))
        step = int(np.clip(step, -6, 8))
        if rng.random() < 0.06:
            continue
        key = _octave_within(style.key_of(step + style.root(at)), low, high)
        notes.append(_note(rng, style, at, beats, key, length_factor))
    return tuple(notes)


def _chords(
    rng: np.random.Generator,
    style: _Style,
    instrument: Instrument,
    centre: int,
    spans: list[tuple[float, float]],
) -> tuple[Note, ...]:
    low, high = max(instrument.low, centre - 8), min(instrument.high, centre + 8)
    length_factor = float(rng.uniform(0.6, 1.0))
    shape = (0, 2, 4) if rng.random() < 0.6 else (0, 2, 4, 6)
    notes = []
    strum = rng.uniform(0, 0.025) if instrument.family == "guitar" else 0.0
    for at, beats in spans:
        keys = {_octave_within(style.key_of(style.root(at) + step), low, high) for step in shape}
        for index, key in enumerate(sorted(keys)):
            note = _note(rng, style, at, beats, key, length_factor)
            notes.append(Note(note.start + index * strum, note.length, key, note.velocity))
    return tuple(notes)


def _bass_line(rng: np.random.Generator, style: _Style) -> tuple[Note, ...]:
    every = float(rng.choice((0.5, 0.5, 1.0, 2.0)))
    notes, at = [], 0.0
    while at * style.beat < style.seconds:
        step = style.root(at) + int(rng.choice((0, 0, 0, 4, 2)))
        key = _octave_within(style.key_of(step), 28, 50)
        notes.append(_note(rng, style, at, every, key, 0.85))
        at += every
    return tuple(notes)


def _drums(rng: np.random.Generator, style: _Style) -> tuple[Note, ...]:
    kick, snare = int(rng.choice(_KICK)), int(rng.choice((*_SNARE, *_SNARE, *_CLAP, *_SIDE)))
    ride = int(rng.choice((*_HATS, *_HATS, 51, 54, 70)))
    hand = [int(key) for key in rng.choice(_HAND, 3)] if rng.random() < 0.35 else []
    extra = {float(beat) for beat in rng.choice(np.arange(0, style.bar, 0.5), 2)}
    notes, at = [], 0.0
    while at * style.beat < style.seconds:
        beat_of_bar = at % style.bar
        keys = [ride]
        if hand:
            keys = [int(rng.choice(hand))] if rng.random() < 0.7 else []
        elif beat_of_bar == 0 or beat_of_bar in extra:
            keys.append(kick)
        elif beat_of_bar == style.bar // 2 or (style.bar == 4 and beat_of_bar % 2 == 1):
            keys.append(snare)
        if rng.random() < 0.04:
            keys.append(int(rng.choice((*_TOMS, *_CYMBALS))))
        notes += [_note(rng, style, at, 0.5, key, 1.0) for key in keys]
        at += 0.5
    return tuple(notes)


def _backing(
    rng: np.random.Generator, style: _Style, word: str, instrument: Instrument
) -> tuple[Note, ...]:
    if word == "bass":
        return _bass_line(rng, style)
    every = float(rng.choice((1.0, 2.0, 4.0)) if word in ("piano", "guitar") else style.bar)
    beats = np.arange(0.0, style.seconds / style.beat, every)
    spans = [(float(at), every) for at in beats]
    return _chords(rng, style, instrument, int(rng.integers(52, 66)), spans)


def _random_lead(rng: np.random.Generator, weights_by_name: Mapping[str, float]) -> Instrument:
    if not weights_by_name:
        return INSTRUMENTS[rng.integers(len(INSTRUMENTS))]
    weights = np.array([weights_by_name.get(instrument.name, 1.0) for instrument in INSTRUMENTS])
    return INSTRUMENTS[rng.choice(len(INSTRUMENTS), p=weights / weights.sum())]


def compose(
    rng: np.random.Generator,
    seconds: float,
    lead: Instrument | None = None,
    drums_alone: float = 0.12,
    lead_weights: Mapping[str, float] = MappingProxyType({}),
) -> Score:
    """A random score.

    Args:
        lead: random if None.
        drums_alone: probability of a score for drums alone.
        lead_weights: relative frequency of leads by name, 1 by default.
    """
    tempo = str(rng.choice(tuple(BEATS_PER_MINUTE)))
    beat = 60.0 / float(rng.uniform(*BEATS_PER_MINUTE[tempo]))
    style = _Style(
        beat,
        seconds,
        int(rng.integers(48, 60)),
        _SCALES[rng.integers(len(_SCALES))],
        _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))],
        int(rng.choice((4, 4, 4, 3))),
        float(rng.uniform(0.4, 0.85)),
        False,
    )
    tempo_label = tempo if seconds >= SHORTEST_PULSE else None
    if lead is None and rng.random() < drums_alone:
        drums = Part(None, _drums(rng, style), 0.0)
        return Score((drums,), Attributes("music", drums=True, tempo=tempo_label))
    if lead is None:
        lead = _random_lead(rng, lead_weights)
    register, centre = _register(rng, lead)
    accompanied = rng.random() < 0.5
    if not accompanied and rng.random() < FREE_RHYTHM:
        style, tempo_label = replace(style, free=True), None
    if lead.chords and not accompanied and rng.random() < 0.45:
        spans = _rhythm(rng, style)
        notes, texture = _chords(rng, style, lead, centre, spans), "chords"
    else:
        notes, texture = _melody(rng, style, lead, centre), "line"
    parts = [Part(lead, notes, 0.0)]
    backing: list[str] = []
    drums_play = False
    if accompanied:
        texture = "accompanied"
        words = [w for w, names in BACKINGS.items() if not _same_role(lead, w, names)]
        backing = [str(w) for w in rng.permutation(words)[: rng.choice((0, 1, 1, 2, 2, 3))]]
        backing = [w for w in BACKINGS if w in backing]
        drums_play = not backing or rng.random() < 0.5
    for word in backing:
        instrument = BY_NAME[str(rng.choice(BACKINGS[word]))]
        gain = float(rng.uniform(-8, -2) if word == "bass" else rng.uniform(-11, -4))
        parts.append(Part(instrument, _backing(rng, style, word, instrument), gain))
    if drums_play:
        parts.append(Part(None, _drums(rng, style), float(rng.uniform(-8, 0))))
    attributes = Attributes(
        "music",
        lead=lead.name,
        texture=texture,
        backing=tuple(backing),
        drums=drums_play,
        register=register,
        tempo=tempo_label,
    )
    return Score(tuple(parts), attributes)


def _same_role(lead: Instrument, word: str, names: tuple[str, ...]) -> bool:
    families = {BY_NAME[name].family for name in names}
    return lead.name in names or (word != "synth pad" and lead.family in families)

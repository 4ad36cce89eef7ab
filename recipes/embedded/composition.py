"""Scores: random but playable music whose attributes are known because they were chosen first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from .captions import Attributes
from .instruments import BACKINGS, BY_NAME, INSTRUMENTS, Instrument

BEATS_PER_MINUTE = {"slow": (50.0, 74.0), "moderate": (94.0, 116.0), "fast": (142.0, 184.0)}
FREE = 0.2  # of what is played alone has no pulse
SHORTEST_PULSE = 2.5  # seconds; in less, neither a tempo nor a trend is stated

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
_PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (5, 3, 0, 4), (0, 4, 5, 3), (1, 4, 0, 0), (0, 3, 0, 4))
# Note lengths in beats. Cells hold half beats and about three notes in two beats: how quick the
# quickest notes are, and how dense they lie, tells a tempo from its half and its double.
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
    """One note: when and for how long, in seconds, its key and its velocity (0 to 1)."""

    start: float
    length: float
    key: int
    velocity: float


@dataclass(frozen=True)
class Part:
    """What one instrument plays. `instrument` is None for the drums; `gain` is in decibels."""

    instrument: Instrument | None
    notes: tuple[Note, ...]
    gain: float


@dataclass(frozen=True)
class Score:
    """The parts, the lead (or the drums) first, and what they make true."""

    parts: tuple[Part, ...]
    attributes: Attributes


@dataclass(frozen=True)
class _Frame:
    """What the parts of one score share."""

    beat: float
    seconds: float
    tonic: int
    scale: tuple[int, ...]
    progression: tuple[int, ...]
    bar: int
    touch: float
    free: bool

    def degree(self, step: int) -> int:
        octave, index = divmod(step, len(self.scale))
        return self.tonic + 12 * octave + self.scale[index]

    def root(self, beat: float) -> int:
        return self.progression[int(beat // self.bar) % len(self.progression)]


def _register(rng: np.random.Generator, instrument: Instrument) -> tuple[str, int]:
    """A register that the instrument can reach, and a key at its centre."""
    zones = {"low": (0, 49), "middle": (56, 68), "high": (75, 127)}
    margin = min(5, (instrument.high - instrument.low) // 4)
    reach = {
        name: (max(low, instrument.low + margin), min(high, instrument.high - margin))
        for name, (low, high) in zones.items()
    }
    names = [name for name, (low, high) in reach.items() if low <= high]
    weights = np.array([reach[name][1] - reach[name][0] + 3.0 for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    return name, int(rng.integers(reach[name][0], reach[name][1] + 1))


def _rhythm(rng: np.random.Generator, frame: _Frame) -> list[tuple[float, float]]:
    if frame.free:
        return _unmeasured(rng, frame)
    motif = [length for _ in range(2) for length in _CELLS[rng.integers(len(_CELLS))]]
    at, spans = 0.0, []
    while at * frame.beat < frame.seconds:
        if rng.random() < 0.3:
            motif = [length for _ in range(2) for length in _CELLS[rng.integers(len(_CELLS))]]
        for length in motif:
            spans.append((at, length))
            at += length
    return spans


def _unmeasured(rng: np.random.Generator, frame: _Frame) -> list[tuple[float, float]]:
    """Notes without a pulse: what has no tempo to be heard must teach none."""
    at, spans = 0.0, []
    typical = float(rng.uniform(0.3, 4.0)) / frame.beat
    while at * frame.beat < frame.seconds:
        length = typical * float(np.exp(rng.normal(0, 0.6)))
        spans.append((at, length))
        at += length
    return spans


def _note(
    rng: np.random.Generator, frame: _Frame, at: float, beats: float, key: int, hold: float
) -> Note:
    accent = 0.12 if at % frame.bar == 0 else 0.0
    velocity = float(np.clip(frame.touch + accent + rng.normal(0, 0.1), 0.25, 1.0))
    start = max(0.0, at * frame.beat + rng.normal(0, 0.006))
    return Note(start, max(0.06, beats * frame.beat * hold), key, velocity)


def _fold(key: int, low: int, high: int) -> int:
    while key < low:
        key += 12
    while key > high:
        key -= 12
    return max(low, min(high, key))


def _melody(
    rng: np.random.Generator, frame: _Frame, instrument: Instrument, centre: int
) -> tuple[Note, ...]:
    low, high = max(instrument.low, centre - 7), min(instrument.high, centre + 7)
    hold = float(rng.uniform(0.5, 1.15))
    step, notes = 0, []
    for at, beats in _rhythm(rng, frame):
        step += int(rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3)))
        step = int(np.clip(step, -6, 8))
        if rng.random() < 0.06:
            continue
        key = _fold(frame.degree(step + frame.root(at)), low, high)
        notes.append(_note(rng, frame, at, beats, key, hold))
    return tuple(notes)


def _chords(
    rng: np.random.Generator,
    frame: _Frame,
    instrument: Instrument,
    centre: int,
    spans: list[tuple[float, float]],
) -> tuple[Note, ...]:
    low, high = max(instrument.low, centre - 8), min(instrument.high, centre + 8)
    hold = float(rng.uniform(0.6, 1.0))
    shape = (0, 2, 4) if rng.random() < 0.6 else (0, 2, 4, 6)
    notes = []
    strum = rng.uniform(0, 0.025) if instrument.family == "guitar" else 0.0
    for at, beats in spans:
        keys = {_fold(frame.degree(frame.root(at) + step), low, high) for step in shape}
        for order, key in enumerate(sorted(keys)):
            note = _note(rng, frame, at, beats, key, hold)
            notes.append(Note(note.start + order * strum, note.length, key, note.velocity))
    return tuple(notes)


def _bass_line(rng: np.random.Generator, frame: _Frame) -> tuple[Note, ...]:
    every = float(rng.choice((0.5, 0.5, 1.0, 2.0)))
    notes, at = [], 0.0
    while at * frame.beat < frame.seconds:
        step = frame.root(at) + int(rng.choice((0, 0, 0, 4, 2)))
        key = _fold(frame.degree(step), 28, 50)
        notes.append(_note(rng, frame, at, every, key, 0.85))
        at += every
    return tuple(notes)


def _drums(rng: np.random.Generator, frame: _Frame) -> tuple[Note, ...]:
    kick, snare = int(rng.choice(_KICK)), int(rng.choice((*_SNARE, *_SNARE, *_CLAP, *_SIDE)))
    ride = int(rng.choice((*_HATS, *_HATS, 51, 54, 70)))
    hand = [int(key) for key in rng.choice(_HAND, 3)] if rng.random() < 0.35 else []
    extra = {float(beat) for beat in rng.choice(np.arange(0, frame.bar, 0.5), 2)}
    notes, at = [], 0.0
    while at * frame.beat < frame.seconds:
        place = at % frame.bar
        hits = [ride]
        if hand:
            hits = [int(rng.choice(hand))] if rng.random() < 0.7 else []
        elif place == 0 or place in extra:
            hits.append(kick)
        elif place == frame.bar // 2 or (frame.bar == 4 and place % 2 == 1):
            hits.append(snare)
        if rng.random() < 0.04:
            hits.append(int(rng.choice((*_TOMS, *_CYMBALS))))
        notes += [_note(rng, frame, at, 0.5, key, 1.0) for key in hits]
        at += 0.5
    return tuple(notes)


def _backing(
    rng: np.random.Generator, frame: _Frame, word: str, instrument: Instrument
) -> tuple[Note, ...]:
    if word == "bass":
        return _bass_line(rng, frame)
    every = float(rng.choice((1.0, 2.0, 4.0)) if word in ("piano", "guitar") else frame.bar)
    beats = np.arange(0.0, frame.seconds / frame.beat, every)
    spans = [(float(at), every) for at in beats]
    return _chords(rng, frame, instrument, int(rng.integers(52, 66)), spans)


def _lead(rng: np.random.Generator, often: Mapping[str, float]) -> Instrument:
    if not often:
        return INSTRUMENTS[rng.integers(len(INSTRUMENTS))]
    weights = np.array([often.get(instrument.name, 1.0) for instrument in INSTRUMENTS])
    return INSTRUMENTS[rng.choice(len(INSTRUMENTS), p=weights / weights.sum())]


def compose(
    rng: np.random.Generator,
    seconds: float,
    lead: Instrument | None = None,
    alone: float = 0.12,
    often: Mapping[str, float] = MappingProxyType({}),
) -> Score:
    """A score of `seconds`, for drums alone with probability `alone`.

    Without a `lead` every instrument is equally likely to be it, or so many times as likely as
    `often` says of its name.
    """
    tempo = str(rng.choice(tuple(BEATS_PER_MINUTE)))
    beat = 60.0 / float(rng.uniform(*BEATS_PER_MINUTE[tempo]))
    frame = _Frame(
        beat,
        seconds,
        int(rng.integers(48, 60)),
        _SCALES[rng.integers(len(_SCALES))],
        _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))],
        int(rng.choice((4, 4, 4, 3))),
        float(rng.uniform(0.4, 0.85)),
        False,
    )
    stated = tempo if seconds >= SHORTEST_PULSE else None
    if lead is None and rng.random() < alone:
        drums = Part(None, _drums(rng, frame), 0.0)
        return Score((drums,), Attributes("music", drums=True, tempo=stated))
    if lead is None:
        lead = _lead(rng, often)
    register, centre = _register(rng, lead)
    accompanied = rng.random() < 0.5
    if not accompanied and rng.random() < FREE:
        frame, stated = replace(frame, free=True), None
    if lead.chords and not accompanied and rng.random() < 0.45:
        spans = _rhythm(rng, frame)
        notes, texture = _chords(rng, frame, lead, centre, spans), "chords"
    else:
        notes, texture = _melody(rng, frame, lead, centre), "line"
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
        parts.append(Part(instrument, _backing(rng, frame, word, instrument), gain))
    if drums_play:
        parts.append(Part(None, _drums(rng, frame), float(rng.uniform(-8, 0))))
    attributes = Attributes(
        "music",
        lead=lead.name,
        texture=texture,
        backing=tuple(backing),
        drums=drums_play,
        register=register,
        tempo=stated,
    )
    return Score(tuple(parts), attributes)


def _same_role(lead: Instrument, word: str, names: tuple[str, ...]) -> bool:
    families = {BY_NAME[name].family for name in names}
    return lead.name in names or (word != "synth pad" and lead.family in families)

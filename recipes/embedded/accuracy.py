"""Accuracy per attribute and class, with confidence intervals, as lines of tables."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .captions import Attributes
from .instruments import family_of


def wilson(correct: int, count: int) -> tuple[float, float]:
    """95 % Wilson confidence interval of a proportion."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.96, correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / count / 2) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass
class Accuracy:
    """Number of correct captions and of all clips, per class of one attribute."""

    name: str
    correct: dict[str, int] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, label: object, correct: bool) -> None:
        """Count one clip."""
        key = str(label)
        self.correct[key] = self.correct.get(key, 0) + correct
        self.count[key] = self.count.get(key, 0) + 1

    def share(self) -> str:
        """Accuracy over all classes, or a dash without clips."""
        count = sum(self.count.values())
        return f"{sum(self.correct.values()) / count:.2f}" if count else "–"

    def lines(self, classes: bool) -> Iterator[str]:
        """Table line of all classes together and, if `classes`, one for each."""
        correct, count = sum(self.correct.values()), sum(self.count.values())
        if not count:
            return
        yield _line(self.name, correct, count)
        if classes and len(self.count) > 1:
            for key in sorted(self.count):
                yield _line(f"— {key}", self.correct[key], self.count[key])


def _line(name: str, correct: int, count: int) -> str:
    low, high = wilson(correct, count)
    return f"| {name} | {correct / count:.2f} | {low:.2f}–{high:.2f} | {correct} / {count} |"


Measure = tuple[str, Callable[[Attributes], object]]
"""Name of an attribute in the tables, and its value; None where it does not apply."""


def _family(a: Attributes) -> object:
    return family_of(a.lead) if a.lead else None


def _solo_or_accompanied(a: Attributes) -> object:
    if a.kind != "music" or a.texture is None:
        return None
    return "accompanied" if a.texture == "accompanied" else "solo"


def _drums_alone(a: Attributes) -> object:
    return a.kind == "music" and a.lead is None


_KIND: Measure = ("kind", lambda a: a.kind)
_SPEECH: Measure = ("speech", lambda a: a.speech)
_FAMILY: Measure = ("family", _family)
_LEAD: Measure = ("lead", lambda a: a.lead)
_LOUDNESS: Measure = ("loudness", lambda a: a.loudness)
MUSIC: tuple[Measure, ...] = (
    _KIND,
    _SPEECH,
    _FAMILY,
    _LEAD,
    ("drums", lambda a: a.drums),
    ("solo or accompanied", _solo_or_accompanied),
    ("register", lambda a: a.register),
    ("tempo", lambda a: a.tempo),
    _LOUDNESS,
    ("change of loudness", lambda a: a.change),
)
FAMILY: tuple[Measure, ...] = (_KIND, _FAMILY)
RECORDED: tuple[Measure, ...] = (*FAMILY, _LEAD, ("drums alone", _drums_alone))
OTHER: tuple[Measure, ...] = (_KIND, _SPEECH)
EFFECT: tuple[Measure, ...] = (("kind: neither music nor speech", lambda a: a.kind), _SPEECH)

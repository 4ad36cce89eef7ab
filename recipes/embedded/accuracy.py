"""Shares of right answers, with their intervals, as lines of tables."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .captions import Attributes
from .instruments import family_of


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.96, right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / count / 2) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass
class Tally:
    """Right and all, for each class of one question."""

    name: str
    right: dict[str, int] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, label: object, right: bool) -> None:
        """Count one clip."""
        key = str(label)
        self.right[key] = self.right.get(key, 0) + right
        self.count[key] = self.count.get(key, 0) + 1

    def share(self) -> str:
        """The share over everything, or a dash where nothing was counted."""
        count = sum(self.count.values())
        return f"{sum(self.right.values()) / count:.2f}" if count else "–"

    def lines(self, classes: bool) -> Iterator[str]:
        """The share over everything, then one line a class."""
        right, count = sum(self.right.values()), sum(self.count.values())
        if not count:
            return
        yield _line(self.name, right, count)
        if classes and len(self.count) > 1:
            for key in sorted(self.count):
                yield _line(f"— {key}", self.right[key], self.count[key])


def _line(name: str, right: int, count: int) -> str:
    low, high = wilson(right, count)
    return f"| {name} | {right / count:.2f} | {low:.2f}–{high:.2f} | {right} / {count} |"


Question = tuple[str, Callable[[Attributes], object]]


def _family(a: Attributes) -> object:
    return family_of(a.lead) if a.lead else None


def _alone(a: Attributes) -> object:
    if a.kind != "music" or a.texture is None:
        return None
    return "accompanied" if a.texture == "accompanied" else "solo"


def _drums_alone(a: Attributes) -> object:
    return a.kind == "music" and a.lead is None


_KIND: Question = ("kind", lambda a: a.kind)
_SPEECH: Question = ("speech", lambda a: a.speech)
_FAMILY: Question = ("family", _family)
_LEAD: Question = ("lead", lambda a: a.lead)
_LOUDNESS: Question = ("loudness", lambda a: a.loudness)
MUSIC: tuple[Question, ...] = (
    _KIND,
    _SPEECH,
    _FAMILY,
    _LEAD,
    ("drums", lambda a: a.drums),
    ("solo or accompanied", _alone),
    ("register", lambda a: a.register),
    ("tempo", lambda a: a.tempo),
    _LOUDNESS,
    ("change of loudness", lambda a: a.change),
)
FAMILY: tuple[Question, ...] = (_KIND, _FAMILY)
RECORDED: tuple[Question, ...] = (*FAMILY, _LEAD, ("drums alone", _drums_alone))
OTHER: tuple[Question, ...] = (_KIND, _SPEECH)
EFFECT: tuple[Question, ...] = (("kind: neither music nor speech", lambda a: a.kind), _SPEECH)

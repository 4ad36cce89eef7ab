"""What pictures are made of: panels and themes, the same for images and for pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from .comparison import Comparison
from .errors import OptionError
from .layers import Layers
from .lens import Lens, Step
from .view import View
from .views import even_columns

__all__ = ["Panel", "Theme", "ThemeName", "Thing", "chosen_panels", "short_name", "theme_of"]

Thing: TypeAlias = View | Lens | Layers | Comparison
ThemeName: TypeAlias = Literal["light", "dark"]

LONGEST_NAME = 60


Scale: TypeAlias = str | tuple[tuple[float, str], ...]

_BERLIN: Scale = (
    (0.0, "#9eb0ff"),
    (0.25, "#2f6e8a"),
    (0.5, "#11191e"),
    (0.75, "#7a2d10"),
    (1.0, "#ffacac"),
)

Panel: TypeAlias = tuple[str, float, Callable[[Any, int], None]]
"""Of a chart: its title, its height in pixels, and what adds it to a row of a plotly figure."""


@dataclass(frozen=True)
class Theme:
    """Colours as CSS writes them, and the names of matplotlib's colour maps."""

    paper: str
    ink: str
    faint: str
    accent: str
    mark: str
    amounts: str
    """From nothing to much."""
    signed: str
    """From one side to the other, with nothing in the middle."""
    amounts_scale: Scale
    signed_scale: Scale
    """The same two as plotly calls them, or the nearest that it has."""


_THEMES: dict[str, Theme] = {
    "light": Theme(
        "#ffffff",
        "#1b1f24",
        "#8a929c",
        "#2f6fdb",
        "#c2410c",
        "YlGnBu",
        "RdBu_r",
        "YlGnBu",
        "RdBu_r",
    ),
    "dark": Theme(
        "#14171c", "#e6e9ee", "#7d8794", "#7fb2ff", "#ffb35c", "magma", "berlin", "Magma", _BERLIN
    ),
}


def theme_of(name: str) -> Theme:
    """Raises OptionError for a name that is no theme."""
    if name not in get_args(ThemeName):
        raise OptionError(f"theme={name!r}: use one of {', '.join(get_args(ThemeName))}")
    return _THEMES[name]


def chosen_panels(thing: Thing, panels: Sequence[str] | None) -> tuple[str, ...]:
    """The panels to draw, in the order in which they are drawn; None: all that have numbers.

    Raises:
        OptionError: for an unknown panel, or one whose numbers weren't asked for.
    """
    there = _panels(thing)
    if panels is None:
        return tuple(name for name, need in there.items() if need is None)
    if isinstance(panels, str):
        raise OptionError(f"panels={panels!r} is one text: give a list, such as [{panels!r}]")
    for name in panels:
        if name not in there:
            kind = type(thing).__name__.lower()
            raise OptionError(f"panel {name!r}: a {kind} has {', '.join(there)}")
        if (need := there[name]) is not None:
            raise OptionError(f"panel {name!r} has no numbers to show: {need}")
    if not panels:
        raise OptionError(f"panels is empty: name at least one of {', '.join(there)}")
    return tuple(name for name in there if name in panels)


def _panels(thing: Thing) -> dict[str, str | None]:
    """Name → what to do to have its numbers, None where they are there."""
    if isinstance(thing, Layers):
        return {"layers": None}
    if isinstance(thing, Comparison):
        return {"times": None}
    if isinstance(thing, Lens):
        audio = None if len(thing.rows("audio")) else "the span holds no audio: use 'all'"
        return {
            "words": None,
            "entropy": audio,
            "followed": audio if thing.followed else "name words to follow (tokens)",
            "nearest": None if thing.nearest_ids is not None else "ask for it (nearest)",
        }
    return {
        "waveform": None if thing.envelope is not None else "give View.of the waveform",
        "mel": None if thing.log_mel is not None else "give View.of the frames of mel",
        "heat": None,
        "colours": None,
        "norms": None,
        "novelty": None,
        "similarity": None,
        "depth": None if thing.depth_norms is not None else "ask for it (depth)",
    }


def over_time(
    lens: Lens, values: Float[np.ndarray, "levels positions"], most: int
) -> tuple[Float[np.ndarray, "levels columns"], float]:
    """What is known of audio positions, averaged onto at most `most` columns of equal length.

    Returns:
        The columns, and their length in seconds.
    """
    audio = lens.rows("audio")
    hop = lens.taps[0].hop_seconds
    middles = lens.seconds[audio] + hop / 2
    span = float(middles.max()) + hop / 2
    columns = max(1, min(most, round(span / hop)))
    made = even_columns(values[:, audio].T, middles, np.ones(len(audio)), span, columns)
    return made.T, span / columns


def text_positions(lens: Lens, most: int) -> list[int]:
    """The last text positions of the first window: what the model reads before it answers."""
    stop = next((s.start for s in lens.spans if s.window > 0), len(lens.read))
    return [int(row) for row in lens.rows("prompt") if row < stop][-most:]


def shown_words(lens: Lens, steps: int, texts: int) -> tuple[list[Step], list[int]]:
    """The columns of a picture of words: steps of audio, and positions of text after them."""
    positions = text_positions(lens, texts)
    after = max(lens.rows("audio"), default=-1) if len(lens.windows) == 1 else -1
    return lens.steps(steps), [place for place in positions if place > after]


def short_word(token: str, most: int = 11) -> str:
    """A token's text without marks around special ones; a space or line end as Python has it."""
    text = token.strip() or repr(token)[1:-1]
    if text.startswith("<|"):
        text = text.removeprefix("<|").removesuffix("|>")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def highest_followed(lens: Lens, number: int | None = None) -> float:
    """How likely a word that is followed (or any of them) becomes where there is audio."""
    shares = lens.followed_probabilities[:, lens.rows("audio")]
    return float((shares if number is None else shares[..., number]).max(initial=0.0))


def short_name(name: str) -> str:
    """A recording's name without its folder, not too long for a title."""
    short = PurePath(name).name or name
    if len(short) <= LONGEST_NAME:
        return short
    half = LONGEST_NAME // 2 - 1
    return f"{short[:half]}…{short[-half:]}"


def clock(seconds: float) -> str:
    """1:02:03 or 4:05, in whole seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def moment(seconds: float, apart_seconds: float, *, long: bool = False) -> str:
    """A time in seconds, to the digits that tell it from one so far away; `long`: as a clock."""
    if long:
        return clock(seconds)
    digits = 0 if apart_seconds >= 10 else 1 if apart_seconds >= 0.1 else 2
    return f"{seconds:.{digits}f}"


def length_text(seconds: float) -> str:
    """40 ms, 6.5 s, or 4:05 min."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{clock(seconds)} min"


def seams(view: View) -> list[float]:
    """Where one window ends and the next begins, in seconds."""
    return [window.start_seconds for window in view.windows[1:]]


def even_share(count: int, most: int) -> list[int]:
    """Of `count` places at most `most`, evenly spread, the last among them."""
    if count <= most:
        return list(range(count))
    step = math.ceil(count / most)
    return list(range(count - 1, -1, -step))[::-1]


def plain(text: str) -> str:
    """A text that plotly does not take for HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""What pictures are made of: panels and themes, the same for images and for pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from qwen_audio.analysis.comparison import Comparison
from qwen_audio.analysis.logit_lens import LensSegment, LogitLens
from qwen_audio.analysis.similarity import LayerSimilarity
from qwen_audio.analysis.structure import even_columns
from qwen_audio.analysis.view import View
from qwen_audio.errors import OptionError

__all__ = ["Panel", "Plottable", "chosen_panels", "short_name"]

Plottable: TypeAlias = View | LogitLens | LayerSimilarity | Comparison

LONGEST_NAME = 60


Panel: TypeAlias = tuple[str, float, Callable[[Any, int], None]]
"""Of a chart: its title, its height in pixels, and what adds it to a row of a plotly figure."""


def chosen_panels(thing: Plottable, panels: Sequence[str] | None) -> tuple[str, ...]:
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
            kind = type(thing).__name__
            raise OptionError(f"panel {name!r}: a {kind} has {', '.join(there)}")
        if (need := there[name]) is not None:
            raise OptionError(f"panel {name!r} has no numbers to show: {need}")
    if not panels:
        raise OptionError(f"panels is empty: name at least one of {', '.join(there)}")
    return tuple(name for name in there if name in panels)


def _panels(thing: Plottable) -> dict[str, str | None]:
    """Name → what to do to have its numbers, None where they are there."""
    if isinstance(thing, LayerSimilarity):
        return {"layers": None}
    if isinstance(thing, Comparison):
        return {"times": None}
    if isinstance(thing, LogitLens):
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
    lens: LogitLens, values: Float[np.ndarray, "levels positions"], most: int
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


def text_positions(lens: LogitLens, most: int) -> list[int]:
    """The last text positions of the first window: what the model reads before it answers."""
    stop = next((s.start for s in lens.spans if s.window > 0), len(lens.read))
    return [int(row) for row in lens.rows("prompt") if row < stop][-most:]


def shown_words(lens: LogitLens, steps: int, texts: int) -> tuple[list[LensSegment], list[int]]:
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


def highest_followed(lens: LogitLens, number: int | None = None) -> float:
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


def window_boundaries(view: View) -> list[float]:
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

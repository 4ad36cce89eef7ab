"""Plots of results in notebooks: importing this module provides `Picture.draw_png`."""

from __future__ import annotations

import io
from typing import Any

from qwen_audio.analysis.picture import Picture

__all__ = ["draw_png"]

_DPI = 72


def draw_png(result: Any) -> bytes:
    """A result's plot as a PNG file.

    Raises:
        MissingExtraError: without matplotlib.
    """
    from .matplotlib_renderer import plot

    image = io.BytesIO()
    plot(result).savefig(image, format="png", dpi=_DPI)
    return image.getvalue()


Picture.draw_png = draw_png

"""Plots of results in notebooks: importing this module provides `Picture.draw_png`."""

from __future__ import annotations

import io
from typing import Any

from qwen_audio.analysis.picture import Picture

__all__ = ["draw_png"]

_DPI = 72


def draw_png(result: Any) -> bytes:
    """A result's plot as a PNG file, with a palette of 256 colours: notebooks stay small.

    Raises:
        MissingExtraError: without matplotlib.
    """
    from .matplotlib_renderer import plot

    image, small = io.BytesIO(), io.BytesIO()
    plot(result).savefig(image, format="png", dpi=_DPI)
    # matplotlib itself needs Pillow.
    from PIL import Image

    Image.open(image).convert("RGB").quantize(256).save(small, format="PNG", optimize=True)
    return small.getvalue()


Picture.draw_png = draw_png

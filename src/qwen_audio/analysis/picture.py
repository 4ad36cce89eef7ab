"""Results that notebooks show as a picture."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Callable
from html import escape
from typing import ClassVar

from qwen_audio.paths import printable

__all__ = ["Picture"]


class Picture:
    """A result that is shown as its plot, or as text where matplotlib isn't installed.

    Attributes:
        draw_png: draws a result; set by `plots.notebook`, as plots are built on results.
    """

    draw_png: ClassVar[Callable[[object], bytes] | None] = None

    def _repr_html_(self) -> str:
        text = f"<pre>{escape(printable(repr(self)))}</pre>"
        if Picture.draw_png is None or importlib.util.find_spec("matplotlib") is None:
            return text
        data = base64.b64encode(Picture.draw_png(self)).decode()
        return f'{text}<img style="max-width: 100%" src="data:image/png;base64,{data}">'

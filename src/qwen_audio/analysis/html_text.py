"""Users' texts in HTML pages: JSON inside scripts, and texts that plotly draws."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from qwen_audio.paths import printable

__all__ = ["plotly_text", "script_json"]

_UNSAFE_IN_SCRIPTS = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def script_json(value: Any) -> str:
    r"""A value as JSON that can stand anywhere in a script element.

    `</script>` would end the element and `<!--<script>` keep it from ending; line separators end
    lines in old browsers, and UTF-8 can't hold surrogates: all are written as `\uXXXX`.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _UNSAFE_IN_SCRIPTS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plotly_text(text: str) -> str:
    """A text that plotly draws as it is; line ends become spaces.

    Plotly takes `<b>` for HTML, `&amp;` for a character, `%{x}` for a placeholder and, on pages
    that load MathJax, `$x$` for a formula.
    """
    text = escape(printable(text.replace("\n", " ")), quote=False)
    return text.replace("$", "&#36;").replace("%{", "&#37;{")

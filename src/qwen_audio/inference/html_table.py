"""Small HTML tables, as notebooks show results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from qwen_audio.paths import printable

__all__ = ["facts_table", "html_table"]


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table whose cells are text, escaped."""
    head = "".join(f"<th>{_cell(column)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows
    )
    title = f'<caption style="text-align: left">{_cell(caption)}</caption>' if caption else ""
    header = f"<thead><tr>{head}</tr></thead>" if columns else ""
    return f"<table>{title}{header}<tbody>{body}</tbody></table>"


def facts_table(caption: str, **facts: object) -> str:
    """A table of names and values; those that are None are left out."""
    rows = [(name.replace("_", " "), value) for name, value in facts.items() if value is not None]
    return html_table((), rows, caption)


def _cell(value: object) -> str:
    return escape(printable(str(value))).replace("\n", "<br>")

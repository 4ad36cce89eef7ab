"""Small HTML tables, as notebooks show results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from jaxtyping import Float32

from qwen_audio.paths import printable

from .row_index import RowIndex

__all__ = ["facts_table", "html_table", "rows_table"]

_SHOWN_ROWS = 8


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


def rows_table(index: RowIndex, vectors: Float32[np.ndarray, "rows width"], caption: str) -> str:
    """The index and norms of the first rows, and how many more there are."""
    norms = np.linalg.norm(vectors[:_SHOWN_ROWS], axis=1)
    columns = {**index[:_SHOWN_ROWS].columns(), "norm": np.round(norms, 3)}
    table = html_table(list(columns), zip(*columns.values(), strict=True), caption)
    more = len(index) - _SHOWN_ROWS
    return table + (f"<p>… and {more} more rows</p>" if more > 0 else "")


def _cell(value: object) -> str:
    return escape(printable(str(value))).replace("\n", "<br>")

"""Columns that the points of a map are coloured by: names, kinds, and which separates best."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from .rows import CollectionRows

__all__ = [
    "NONE",
    "OTHER",
    "ColumnColours",
    "best_column",
    "colour_columns",
    "column_colours",
    "column_label",
    "column_unit",
]

OTHER, NONE = 10, 255
"""Codes of the categories beyond the ten most frequent, and of rows without a value."""
_LEVELS = 254
"""Codes of numbers are 0 to 254."""
_OUTLIERS = 0.01
"""Share of the rows at either end that the range of a number's colours leaves out."""
_MIN_ROWS_WITHOUT_OUTLIERS = 200
_BINS = 10
"""Of a number, by which its separation is computed: deciles."""
_SAMPLE_ROWS = 5_000
_LABELS = {
    "start_seconds": "start",
    "end_seconds": "end",
    "duration_seconds": "recording’s duration",
    "sampling_rate": "sampling rate",
    "format": "file format",
    "norm": "vector’s norm",
}
_UNITS = {
    "sampling_rate": "Hz",
    "_seconds": "s",
    "_ms": "ms",
    "_hz": "Hz",
    "_khz": "kHz",
    "_bpm": "BPM",
    "_db": "dB",
    "_dbfs": "dBFS",
    "_lufs": "LUFS",
    "_percent": "%",
    "_years": "years",
}
_SNAKE_CASE = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
_WORDS = {"rms": "RMS", "bpm": "BPM", "snr": "SNR", "id": "ID", "f0": "F0"}


@dataclass(frozen=True, eq=False)
class ColumnColours:
    """How a column colours the points.

    Attributes:
        is_number: else its values are categories.
        codes: of numbers the level from `low` (0) to `high` (254); of categories the index in
            `categories`, OTHER for the rarer ones; NONE for rows without a value.
        low, high: of a number; values beyond them have the colours of these.
        is_cut: whether there are values beyond them.
        categories: the ten most frequent ones, each with its number of rows.
        kinds: number of all categories.
    """

    name: str
    is_number: bool
    codes: UInt8[np.ndarray, "rows"]
    low: float = 0.0
    high: float = 0.0
    is_cut: bool = False
    categories: tuple[tuple[str, int], ...] = ()
    kinds: int = 0


def column_unit(name: str) -> str:
    """The unit that a column's name ends in, such as s, Hz or dBFS; empty without one."""
    matches = [(len(end), unit) for end, unit in _UNITS.items() if name.lower().endswith(end)]
    return max(matches)[1] if matches else ""


def column_label(name: str) -> str:
    """A column's name to be shown, its unit in brackets: peak_dbfs → peak level (dBFS)."""
    unit = column_unit(name)
    ends = [end for end in _UNITS if unit and name.lower().endswith(end) and end.startswith("_")]
    stem = name[: -len(max(ends, key=len))] if ends else name
    if name not in _LABELS:
        words = stem.split("_") if _SNAKE_CASE.fullmatch(stem) else [stem]
        text = " ".join(_WORDS.get(word, word) for word in words)
        text = f"{text} level" if unit in ("dBFS", "LUFS") and "level" not in text else text
    else:
        text = _LABELS[name]
    return f"{text} ({unit})" if unit else text


def colour_columns(rows: CollectionRows, max_kinds: int | None = None) -> tuple[str, ...]:
    """The columns with at least two values that aren't texts of their own in nearly every row.

    Args:
        max_kinds: of a category; by default ten, or half as many as there are rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    limit = max(OTHER, len(rows) // 2) if max_kinds is None else max_kinds
    columns = []
    for name in dict.fromkeys(["recording", "folder", *rows.shown_columns]):
        values = rows.column(name)
        kind = values.type
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not is_number and not pa.types.is_string(kind) and not pa.types.is_boolean(kind):
            continue
        if pa.types.is_floating(kind):
            values = pc.if_else(pc.is_finite(values), values, None)
        kinds = pc.count_distinct(values, mode="only_valid").as_py()
        if kinds > 1 and (is_number or kinds <= limit):
            columns.append(name)
    return tuple(columns)


def column_colours(rows: CollectionRows, name: str) -> ColumnColours:
    """The colours of all rows by one of `colour_columns`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = rows.column(name)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return _number_colours(name, np.asarray(numbers, np.float64))
    texts = pc.cast(values, pa.string())
    counts = sorted(
        ((entry["values"], entry["counts"]) for entry in pc.value_counts(texts).to_pylist()),
        key=lambda entry: (-entry[1], str(entry[0])),
    )
    known = [(text, count) for text, count in counts if text is not None]
    frequent = known[:OTHER]
    found = pc.index_in(texts, pa.array([text for text, _ in frequent], pa.string()))
    codes = np.where(
        np.asarray(pc.is_null(texts).to_numpy(zero_copy_only=False), bool),
        NONE,
        pc.fill_null(found, OTHER).to_numpy(zero_copy_only=False),
    )
    categories = tuple((str(text), int(count)) for text, count in frequent)
    return ColumnColours(
        name, False, codes.astype(np.uint8), categories=categories, kinds=len(known)
    )


def _number_colours(name: str, numbers: Float[np.ndarray, "rows"]) -> ColumnColours:
    is_known = np.isfinite(numbers)
    known = numbers[is_known]
    ends = [0.0, 1.0] if len(known) < _MIN_ROWS_WITHOUT_OUTLIERS else [_OUTLIERS, 1 - _OUTLIERS]
    low, high = (float(end) for end in np.quantile(known, ends))
    if low == high:
        low, high = float(known.min()), float(known.max())
    levels = np.clip((numbers - low) / max(high - low, 1e-300), 0, 1) * _LEVELS
    codes = np.where(is_known, np.nan_to_num(levels).round(), NONE).astype(np.uint8)
    is_cut = bool(known.min() < low or known.max() > high)
    return ColumnColours(name, True, codes, low, high, is_cut)


def best_column(
    rows: CollectionRows, vectors: Float[np.ndarray, "rows width"], columns: tuple[str, ...]
) -> tuple[str, float] | None:
    """The column whose groups of rows differ most in their vectors, and by how much.

    The measure is ε² (Kelley, 1935): the share of the vectors' variance that is between the groups,
    as in PERMANOVA (Anderson, 2001), corrected for what random groups of their number would have,
    so that a column with many values gains nothing by that. Groups are the colours; of numbers the
    deciles. It is computed on at most 5000 rows. None if no column has more than random groups.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE_ROWS)).astype(int))
    sample = vectors[chosen].astype(np.float32)
    found = []
    for name in columns:
        colours = column_colours(rows, name)
        codes = colours.codes[chosen].astype(np.int64)
        if colours.is_number:
            is_known = codes != NONE
            edges = np.unique(np.quantile(codes[is_known], np.linspace(0, 1, _BINS + 1)[1:-1]))
            codes = np.where(is_known, np.searchsorted(edges, codes, side="left"), NONE)
        found.append((_separation(codes, sample), name))
    best = max(found, key=lambda entry: entry[0], default=(0.0, ""))
    return (best[1], best[0]) if best[0] > 0 else None


def _separation(groups: np.ndarray, vectors: Float[np.ndarray, "rows width"]) -> float:
    """ε² of groups of vectors; 0 where there are as many groups as vectors."""
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    total = float(np.square(centred, dtype=np.float64).sum())
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rows, count = len(vectors), len(starts)
    if not total or rows <= count:
        return 0.0
    sums = np.add.reduceat(centred[order].astype(np.float64), starts, axis=0)
    between = float((np.square(sums).sum(axis=1) / sizes).sum())
    return 1 - (1 - between / total) * (rows - 1) / (rows - count)

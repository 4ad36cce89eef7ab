"""Two-dimensional projection of a collection's vectors: UMAP or PCA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.analysis.files import atomic_write, check_output_path, save_numbers
from qwen_audio.analysis.plots.theme import ThemeName, theme_of
from qwen_audio.audio.window import Window
from qwen_audio.errors import (
    CollectionError,
    OptionError,
    check_extra,
    counted,
    whole_number_option,
)
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.paths import file_name, path_from_text, printable

from .dimension_reduction import UMAP_FITTED_ROWS, pca_points, umap_points
from .map_audio import audio_mode, audio_urls
from .map_columns import best_column, colour_columns, column_label
from .map_page import MapPage, map_page
from .rows import CollectionRows, read_rows
from .table import WindowTable
from .vectors import is_unit

__all__ = ["UMAP_MIN_ROWS", "Projection", "check_page_rows", "project"]

UMAP_MIN_ROWS = 16
"""UMAP uses 15 neighbours of each row."""
MAX_PAGE_ROWS = 20_000
"""Beyond, the .html page is slow: it holds every row's texts."""
_MAX_CATEGORIES = 40
_CHECKED_ROWS = 65_536


@dataclass(frozen=True, eq=False, repr=False)
class Projection:
    """Two-dimensional coordinates of a collection's windows; made by `Collection.map`.

    Attributes:
        name: of the collection.
        method: "umap" or "pca".
        points: coordinates without a unit; only distances mean something.
        rows: for each point its row of the collection without `vector`.
        columns: those that points can be coloured by.
        track: which audio track of the files was indexed; None for FFmpeg's choice.
        fitted: number of rows that UMAP was fitted on: all of them up to 20,000.
        best_column: the column whose groups of vectors differ most, and their ε², the share of the
            variance that is between them (see `map_columns.best_column`); None if none do.
    """

    name: str
    method: str
    points: Float32[np.ndarray, "windows 2"]
    rows: Sequence[dict[str, Any]]
    columns: tuple[str, ...]
    track: int | None = None
    fitted: int | None = None
    best_column: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        if len(self.points) != len(self.rows):
            raise ValueError(f"{len(self.points)} points for {len(self.rows)} rows")

    def write_html(
        self,
        path: str | Path,
        *,
        audio: str | None = None,
        colour: str | None = None,
        theme: ThemeName = "light",
        on_progress: OnProgress | None = None,
    ) -> MapPage:
        """Write the map as an .html page: hover, colour by a column, click to play the window.

        Args:
            audio: "embed" puts every window's audio into the page (Opus, 4 kB a second), so that
                the page can be sent to others; "link" plays the files where they are; "none"
                neither. By default it is embedded up to 20 MB, and linked beyond.
            colour: the column to colour by at first.
            on_progress: called before each recording is embedded; see `OnProgress`.

        Raises:
            OptionError: for a column that can't be coloured by, more than 20,000 rows, or too much
                audio to embed.
            MissingExtraError: without plotly.
        """
        target = check_output_path(path, (".html",))
        text, mode, failures = self.to_html(
            audio=audio, colour=colour, theme=theme, on_progress=on_progress
        )
        atomic_write(target, lambda draft: draft.write_text(text, encoding="utf-8"))
        return MapPage(target, mode, failures)

    def to_html(
        self,
        *,
        audio: str | None = None,
        colour: str | None = None,
        theme: ThemeName = "light",
        on_progress: OnProgress | None = None,
    ) -> tuple[str, str, tuple[str, ...]]:
        """The page, whether its audio is "embedded", "linked" or "none", and the errors of files
        that could not be embedded. Arguments and errors are those of `write_html`."""
        check_page_rows(len(self))
        if colour is not None and colour not in self.columns:
            choices = ", ".join(self.columns) or "none: all rows are the same"
            raise OptionError(f"colour={colour!r} can't be coloured by: choose one of {choices}")
        mode = audio_mode(self.rows, audio)
        urls, failures = audio_urls(self.rows, mode, self.track, on_progress)
        first_column = next(iter(self.columns), None) if colour is None else colour
        data = {
            "x": [round(float(x), 4) for x in self.points[:, 0]],
            "y": [round(float(y), 4) for y in self.points[:, 1]],
            "names": self.file_names,
            "times": [str(Window(row["start_seconds"], row["end_seconds"])) for row in self.rows],
            "captions": [row.get("caption") for row in self.rows],
            "audio_urls": urls,
            "columns": [_column_data(name, self.values(name)) for name in self.columns],
            "colour": self.columns.index(first_column) if first_column is not None else None,
        }
        made = f"{counted(len(self), 'window')} by {self.method.upper()}"
        note = f"{made}: nearby points are similar; axes have no unit."
        return map_page(self.name, note, data, theme_of(theme)), mode, failures

    def values(self, column: str) -> list[Any]:
        """A column's value for every window; besides the collection's columns `recording`, the
        file's name, and `folder`, its parent folder's name, unless a manifest has added these."""
        if isinstance(self.rows, CollectionRows):
            return list(self.rows.column(column).to_pylist())
        if column == "folder" and not (self.rows and column in self.rows[0]):
            return [
                printable(PurePath(path_from_text(row["source"])).parent.name) for row in self.rows
            ]
        if column == "recording" and not (self.rows and column in self.rows[0]):
            return self.file_names
        return [row[column] for row in self.rows]

    @cached_property
    def file_names(self) -> list[str]:
        """The name of every window's file, to be shown."""
        if isinstance(self.rows, CollectionRows):
            return self.rows.file_names
        return [file_name(row["source"]) for row in self.rows]

    def table(self) -> list[dict[str, Any]]:
        """One row a point: source, window, start_seconds, end_seconds, caption, x and y, and the
        further columns that points can be coloured by."""
        columns = {name: self.values(name) for name in self.columns if name != "recording"}
        names = ("source", "window", "start_seconds", "end_seconds", "caption")
        return [
            {name: row.get(name) for name in names}
            | {"x": float(x), "y": float(y)}
            | {name: values[number] for name, values in columns.items() if name not in names}
            for number, (row, (x, y)) in enumerate(zip(self.rows, self.points, strict=True))
        ]

    def save(self, path: str | Path) -> Path:
        """Write `table` as .csv or .json, or the points as .npz: see `save_numbers`."""
        facts = {"name": self.name, "method": self.method, "columns": list(self.columns)}
        return save_numbers(path, facts, {"points": self.points}, self.table)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Projection({self.name!r}, {counted(len(self), 'window')} by {self.method})"


def check_page_rows(count: int) -> None:
    """Raises OptionError for more rows than a page of a map holds."""
    if count > MAX_PAGE_ROWS:
        raise OptionError(
            f"{count} windows are too many for one page: select {MAX_PAGE_ROWS} or fewer with "
            "where="
        )


def project(
    collection: WindowTable,
    *,
    method: str | None = None,
    seed: int = 0,
    where: str | None = None,
    on_progress: OnProgress | None = None,
) -> Projection:
    """Two-dimensional projection of a collection's vectors.

    Args:
        method: "umap" (McInnes et al., 2018; 15 neighbours, cosine), or "pca", the two principal
            components; by default UMAP, and PCA for fewer than 16 windows. Beyond 20,000 rows UMAP
            is fitted on as many, drawn at random; others are put at the mean of their neighbours.
        seed: of UMAP; the same seed gives the same map.
        where: SQL over the columns.
        on_progress: called as rows are read, and before they are projected; see `OnProgress`.

    Raises:
        CollectionError: if there are no rows.
        OptionError: for an unknown method or condition, or too few rows for UMAP.
        MissingExtraError: without umap-learn.
    """
    if method not in (None, "umap", "pca"):
        raise OptionError(f"method={method!r}: use 'umap' or 'pca'")
    seed = whole_number_option("seed", seed, 0, 2**32 - 1)
    condition = collection.condition(where)
    count = collection.count(condition)
    if not count:
        raise CollectionError(
            f"{collection.location} has no rows{' that fit' * (where is not None)} to project"
        )
    if method == "umap" and count < UMAP_MIN_ROWS:
        raise OptionError(
            f"UMAP takes {UMAP_MIN_ROWS} windows or more, not {count}: use method='pca'"
        )
    method = method or ("umap" if count >= UMAP_MIN_ROWS else "pca")
    if method == "umap":
        check_extra("a map by UMAP", "map", "umap")
    rows, vectors = read_rows(collection, condition, on_progress)
    _check_vectors(collection, rows, vectors)
    if on_progress is not None:
        on_progress(f"projecting {counted(len(rows), 'window')} by {method.upper()}", 0, None)
    points = (umap_points if method == "umap" else pca_points)(vectors, seed)
    return Projection(
        collection.location.name,
        method,
        points,
        rows,
        colour_columns(rows, _MAX_CATEGORIES),
        collection.spec.track,
        min(len(rows), UMAP_FITTED_ROWS) if method == "umap" else len(rows),
        best_column(rows, vectors, colour_columns(rows)),
    )


def _check_vectors(collection: WindowTable, rows: CollectionRows, vectors: np.ndarray) -> None:
    """Raises CollectionError, naming the first of them, if vectors are damaged."""
    parts = [
        np.flatnonzero(~is_unit(vectors[start : start + _CHECKED_ROWS])) + start
        for start in range(0, len(vectors), _CHECKED_ROWS)
    ]
    damaged = np.concatenate(parts)
    if damaged.size:
        row = rows[int(damaged[0])]
        raise CollectionError(
            f"{collection.location}: {damaged.size} of {len(rows)} vectors are damaged, the first "
            f"of {row['source']}#{row['window']}: `qwen-audio collection verify` lists them"
        )


def _column_data(name: str, values: list[Any]) -> dict[str, Any]:
    """A column as `map_page` takes it."""
    known = [value for value in values if value is not None]
    label = column_label(name)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        finite = [v if v is not None and math.isfinite(v) else None for v in values]
        return {"name": name, "label": label, "values": finite}
    categories = sorted({str(value) for value in known})
    indices = {category: index for index, category in enumerate(categories)}
    return {
        "name": name,
        "label": label,
        "values": [None if value is None else indices[str(value)] for value in values],
        "categories": categories,
    }

"""Two-dimensional projection of a collection's vectors: UMAP or PCA."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.analysis.files import atomic_write, check_output_path, save_numbers
from qwen_audio.analysis.plots.theme import ThemeName, theme_of
from qwen_audio.audio.opus import DATA_URI_BYTES_PER_SECOND, data_uri, encode_opus
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion
from qwen_audio.audio.window import Window
from qwen_audio.errors import (
    AudioError,
    CollectionError,
    OptionError,
    check_extra,
    counted,
    whole_number_option,
)
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.paths import file_name, path_from_text, printable

from .dimension_reduction import pca_points, umap_points
from .map_page import MapPage, map_page
from .records import load_indexed
from .table import WindowTable
from .vectors import is_unit, stored_vectors

__all__ = ["Projection", "project"]

UMAP_MIN_ROWS = 16
"""UMAP uses 15 neighbours of each row."""
MAX_ROWS = 20_000
"""Beyond, UMAP and the page are slow."""
MAX_EMBEDDED_BYTES = 20e6
"""Of audio in a page: larger pages open slowly."""
_MAX_CATEGORIES = 40
_NOT_COLOURABLE = {
    "vector",
    "source",
    "window",
    "content_hash",
    "source_bytes",
    "source_changed",
    "indexed_at",
}
_UNITS = {"seconds": "s", "rate": "Hz"}


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
    """

    name: str
    method: str
    points: Float32[np.ndarray, "windows 2"]
    rows: tuple[dict[str, Any], ...]
    columns: tuple[str, ...]
    track: int | None = None

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
            OptionError: for a column that can't be coloured by, or too much audio to embed.
            MissingExtraError: without plotly.
        """
        target = check_output_path(path, (".html",))
        text, audio_mode, failures = self.to_html(
            audio=audio, colour=colour, theme=theme, on_progress=on_progress
        )
        atomic_write(target, lambda draft: draft.write_text(text, encoding="utf-8"))
        return MapPage(target, audio_mode, failures)

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
        if colour is not None and colour not in self.columns:
            choices = ", ".join(self.columns) or "none: all rows are the same"
            raise OptionError(f"colour={colour!r} can't be coloured by: choose one of {choices}")
        audio_mode = self._audio_mode(audio)
        audio_urls, failures = self._audio_urls(audio_mode, on_progress)
        first_column = next(iter(self.columns), None) if colour is None else colour
        data = {
            "x": [round(float(x), 4) for x in self.points[:, 0]],
            "y": [round(float(y), 4) for y in self.points[:, 1]],
            "names": self.file_names,
            "times": [str(Window(row["start_seconds"], row["end_seconds"])) for row in self.rows],
            "captions": [row.get("caption") for row in self.rows],
            "audio_urls": audio_urls,
            "columns": [_column_data(name, self.values(name)) for name in self.columns],
            "colour": self.columns.index(first_column) if first_column is not None else None,
        }
        made = f"{counted(len(self), 'window')} by {self.method.upper()}"
        note = f"{made}: nearby points are similar; axes have no unit."
        return map_page(self.name, note, data, theme_of(theme)), audio_mode, failures

    def values(self, column: str) -> list[Any]:
        """A column's value for every window; besides the collection's columns `recording`, the
        file's name, and `folder`, its parent folder's name, unless a manifest has added these."""
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
        return [file_name(row["source"]) for row in self.rows]

    def _audio_mode(self, audio: str | None) -> str:
        if audio not in (None, "embed", "link", "none"):
            raise OptionError(f"audio={audio!r}: use 'embed', 'link' or 'none'")
        seconds = sum(row["end_seconds"] - row["start_seconds"] for row in self.rows)
        size_bytes = seconds * DATA_URI_BYTES_PER_SECOND
        if audio == "embed" and size_bytes > MAX_EMBEDDED_BYTES:
            raise OptionError(
                f"audio='embed': {seconds:.0f} s of audio take {size_bytes / 1e6:.0f} MB, and "
                f"a page holds {MAX_EMBEDDED_BYTES / 1e6:.0f}: use 'link', or fewer rows (where=)"
            )
        if audio is None:
            audio = "embed" if size_bytes <= MAX_EMBEDDED_BYTES else "link"
        return {"embed": "embedded", "link": "linked", "none": "none"}[audio]

    def _audio_urls(
        self, audio_mode: str, on_progress: OnProgress | None
    ) -> tuple[list[str | None], tuple[str, ...]]:
        """For every point a data: URL, a link or None; and why some files could not be embedded."""
        if audio_mode == "none":
            return [None] * len(self), ()
        if audio_mode == "linked":
            return [_link(row) for row in self.rows], ()
        urls: list[str | None] = [None] * len(self)
        failures = []
        points_of: dict[str, list[int]] = {}
        for point, row in enumerate(self.rows):
            points_of.setdefault(row["source"], []).append(point)
        seconds = 0.0
        for number, (source, points) in enumerate(points_of.items()):  # each is decoded once
            if on_progress is not None:
                on_progress("embedding audio", number, len(points_of), "recordings", seconds)
            row = self.rows[points[0]]
            version = SourceVersion(row["source_bytes"], row["source_changed"], row["content_hash"])
            try:
                waveform = load_indexed(Source(source), version, self.track)
            except AudioError as error:
                failures.append(str(error))
                continue
            seconds += waveform.duration_seconds
            for point in points:
                row = self.rows[point]
                samples = waveform.samples_in(Window(row["start_seconds"], row["end_seconds"]))
                urls[point] = data_uri(encode_opus(samples)) if samples.size else None
        return urls, tuple(failures)

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
            components; by default UMAP, and PCA for fewer than 16 windows.
        seed: of UMAP; the same seed gives the same map.
        where: SQL over the columns.
        on_progress: called as rows are read, and before they are projected; see `OnProgress`.

    Raises:
        CollectionError: if there are no rows.
        OptionError: for an unknown method or condition, too few rows for UMAP, or too many.
        MissingExtraError: without umap-learn.
    """
    if method not in (None, "umap", "pca"):
        raise OptionError(f"method={method!r}: use 'umap' or 'pca'")
    seed = whole_number_option("seed", seed, 0, 2**32 - 1)
    collection.table.checkout_latest()
    condition = collection.condition(where)
    count = collection.count(condition)
    if not count:
        raise CollectionError(
            f"{collection.location} has no rows{' that fit' * (where is not None)} to project"
        )
    if count > MAX_ROWS:
        raise OptionError(
            f"{count} windows are too many for one page: select {MAX_ROWS} or fewer with where="
        )
    if method == "umap" and count < UMAP_MIN_ROWS:
        raise OptionError(
            f"UMAP takes {UMAP_MIN_ROWS} windows or more, not {count}: use method='pca'"
        )
    method = method or ("umap" if count >= UMAP_MIN_ROWS else "pca")
    if method == "umap":
        check_extra("a map by UMAP", "map", "umap")
    table = collection.rows(condition, on_progress)
    vectors = stored_vectors(table["vector"]).astype(np.float32)
    rows = table.drop_columns(["vector"]).to_pylist()
    if (damaged := np.flatnonzero(~is_unit(vectors))).size:
        row = rows[damaged[0]]
        raise CollectionError(
            f"{collection.location}: {damaged.size} of {count} vectors are damaged, the first of "
            f"{row['source']}#{row['window']}: `qwen-audio collection verify` lists them"
        )
    order = sorted(range(count), key=lambda k: (rows[k]["source"], rows[k]["window"]))
    if on_progress is not None:
        on_progress(f"projecting {counted(count, 'window')} by {method.upper()}", 0, None)
    points = (umap_points if method == "umap" else pca_points)(vectors[order], seed)
    name, ordered = collection.location.name, tuple(rows[k] for k in order)
    projection = Projection(name, method, points, ordered, (), collection.spec.track)
    stored = (name for name in table.schema.names if name not in _NOT_COLOURABLE)
    names = dict.fromkeys(["recording", "folder", *stored])
    columns = tuple(n for n in names if _column_data(n, projection.values(n)) is not None)
    return replace(projection, columns=columns)


def _column_data(name: str, values: list[Any]) -> dict[str, Any] | None:
    """A column as `map_page` takes it, or None for one that can't be coloured by."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        unit = next((unit for part, unit in _UNITS.items() if part in name), "")
        finite = [v if v is not None and math.isfinite(v) else None for v in values]
        return {"name": name, "label": f"{name} ({unit})" if unit else name, "values": finite}
    categories = sorted({str(value) for value in known})
    if len(categories) > _MAX_CATEGORIES or not all(isinstance(v, str | bool) for v in known):
        return None
    indices = {category: index for index, category in enumerate(categories)}
    return {
        "name": name,
        "label": name,
        "values": [None if value is None else indices[str(value)] for value in values],
        "categories": categories,
    }


def _link(row: dict[str, Any]) -> str | None:
    """URL of a window with a media fragment, for sources that a browser can play."""
    source = Source(row["source"])
    fragment = f"#t={row['start_seconds']:g},{row['end_seconds']:g}"
    if source.is_local:
        return Path(source.path).as_uri() + fragment
    return source.uri + fragment if source.uri.startswith(("http://", "https://")) else None

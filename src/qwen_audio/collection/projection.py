"""A collection laid out in two dimensions: near is alike."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.analysis.files import atomic_write, check_output_path
from qwen_audio.analysis.plots.theme import ThemeName, theme_of
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.opus import DATA_URI_BYTES_PER_SECOND, data_uri, encode_opus
from qwen_audio.audio.source import Source
from qwen_audio.audio.window import Window
from qwen_audio.errors import AudioError, CollectionError, MissingExtraError, OptionError

from .map_page import MapPage, map_page
from .table import WindowTable

__all__ = ["Projection", "lay_out"]

UMAP_ROWS, MOST_ROWS = 16, 20_000
"""UMAP looks at 15 neighbours of each; beyond the other a page is slow, and so is UMAP."""
EMBEDDED_BYTES = 20e6
"""Of sound in a page, at most: more opens slowly."""
_MOST_CATEGORIES = 40
_NOT_COLOURS = {
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
    """Windows of a collection, and where each lies; made by `Collection.map`.

    Attributes:
        name: of the collection.
        method: "umap" or "pca".
        points: shape (windows, 2): only distances between them mean something.
        rows: the collection's columns for each, `vector` apart.
        columns: those that the points can be coloured by.
    """

    name: str
    method: str
    points: Float32[np.ndarray, "windows 2"]
    rows: tuple[dict[str, Any], ...]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.points) != len(self.rows):
            raise ValueError(f"{len(self.points)} points for {len(self.rows)} rows")

    def page(
        self,
        path: str | Path,
        *,
        audio: str | None = None,
        colour: str | None = None,
        theme: ThemeName = "light",
    ) -> MapPage:
        """Write the map as an .html page: hover, colour by a column, click to hear the window.

        Args:
            audio: "embed" puts every window's sound into the page (Opus, some 4 kB a second), so
                that it can be passed on; "link" plays the files where they are; "none" neither. By
                default it is embedded where all of it takes 20 MB at most, and linked where not.
            colour: the column to colour by at first.

        Raises:
            OptionError: for a column that is no choice, or sounds too large to be embedded.
            MissingExtraError: without plotly.
        """
        target = check_output_path(path, (".html",))
        text, how, failures = self.html(audio=audio, colour=colour, theme=theme)
        atomic_write(target, lambda draft: draft.write_text(text, encoding="utf-8"))
        return MapPage(target, how, failures)

    def html(
        self, *, audio: str | None = None, colour: str | None = None, theme: ThemeName = "light"
    ) -> tuple[str, str, tuple[str, ...]]:
        """The page's text, what became of the sound, and why some windows have none."""
        if colour is not None and colour not in self.columns:
            choices = ", ".join(self.columns) or "none: all rows are alike"
            raise OptionError(f"colour={colour!r} is no column to colour by: choose of {choices}")
        how = self._audio(audio)
        sounds, failures = self._sounds(how)
        first = colour or next(iter(self.columns), None)
        data = {
            "x": [round(float(x), 4) for x in self.points[:, 0]],
            "y": [round(float(y), 4) for y in self.points[:, 1]],
            "labels": [_label(row) for row in self.rows],
            "sounds": sounds,
            "columns": {name: _coloured(name, self.values(name)) for name in self.columns},
            "colour": first,
        }
        note = f"{len(self)} windows by {self.method.upper()}: near is alike; axes have no unit."
        text = map_page(self.name, note, data, theme_of(theme))
        return text, how, failures

    def values(self, column: str) -> list[Any]:
        """Of one column, a value a window; `folder` is the one that the recording lies in."""
        if column == "folder":
            return [PurePath(row["source"]).parent.name for row in self.rows]
        if column == "recording":
            return [PurePath(row["source"]).name for row in self.rows]
        return [row[column] for row in self.rows]

    def _audio(self, asked: str | None) -> str:
        if asked not in (None, "embed", "link", "none"):
            raise OptionError(f"audio={asked!r}: use 'embed', 'link' or 'none'")
        seconds = sum(row["end_seconds"] - row["start_seconds"] for row in self.rows)
        size = seconds * DATA_URI_BYTES_PER_SECOND
        if asked == "embed" and size > EMBEDDED_BYTES:
            raise OptionError(
                f"audio='embed': {seconds:.0f} s of sound would take {size / 1e6:.0f} MB, and a "
                f"page holds {EMBEDDED_BYTES / 1e6:.0f}: use 'link', or choose fewer (where=)"
            )
        if asked is None:
            asked = "embed" if size <= EMBEDDED_BYTES else "link"
        return {"embed": "embedded", "link": "linked", "none": "none"}[asked]

    def _sounds(self, how: str) -> tuple[list[str | None], tuple[str, ...]]:
        if how == "none":
            return [None] * len(self), ()
        if how == "linked":
            return [_address(row) for row in self.rows], ()
        sounds: list[str | None] = [None] * len(self)
        failures = []
        of_source: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            of_source.setdefault(row["source"], []).append(number)
        for source, numbers in of_source.items():  # each is decoded once
            try:
                waveform = load_waveform(Source.from_path(source).audio_input())
            except AudioError as error:
                failures.append(str(error))
                continue
            for number in numbers:
                row = self.rows[number]
                cut = waveform.samples_in(Window(row["start_seconds"], row["end_seconds"]))
                sounds[number] = data_uri(encode_opus(cut)) if cut.size else None
        return sounds, tuple(failures)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Projection({self.name!r}, {len(self)} windows by {self.method})"


def lay_out(
    collection: WindowTable, *, method: str | None = None, seed: int = 0, where: str | None = None
) -> Projection:
    """The windows of a collection in two dimensions.

    Args:
        method: "umap" (McInnes et al., 2018; 15 neighbours, cosine), or "pca", the two principal
            components; by default UMAP, and PCA where there are fewer than 16 windows.
        seed: of UMAP: the same gives the same map.
        where: SQL over the columns.

    Raises:
        CollectionError: if there are no rows.
        OptionError: for an unknown method or condition, too few rows for UMAP, or too many.
        MissingExtraError: without umap-learn.
    """
    if method not in (None, "umap", "pca"):
        raise OptionError(f"method={method!r}: use 'umap' or 'pca'")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise OptionError(f"seed={seed!r}: use a whole number from 0 to 2**32 - 1")
    collection.table.checkout_latest()
    count = collection.count(where)
    if not count:
        raise CollectionError(
            f"{collection.path} has no rows{' that fit' * bool(where)} to lay out"
        )
    if count > MOST_ROWS:
        raise OptionError(
            f"{count} windows are too many for one page: choose {MOST_ROWS} or fewer with where="
        )
    if method == "umap" and count < UMAP_ROWS:
        raise OptionError(f"UMAP of {count} windows: it takes {UMAP_ROWS} or more; use 'pca'")
    method = method or ("umap" if count >= UMAP_ROWS else "pca")
    table = collection.columns(collection.table.schema.names, where)
    vectors = np.asarray(table["vector"].to_pylist(), np.float32)
    rows = table.drop_columns(["vector"]).to_pylist()
    order = sorted(range(count), key=lambda k: (rows[k]["source"], rows[k]["window"]))
    points = (_umap if method == "umap" else _pca)(vectors[order], seed)
    made = Projection(collection.path.name, method, points, tuple(rows[k] for k in order), ())
    names = ["recording", "folder", *(n for n in table.schema.names if n not in _NOT_COLOURS)]
    usable = tuple(name for name in names if _coloured(name, made.values(name)) is not None)
    return Projection(made.name, method, points, made.rows, usable)


def _umap(vectors: Float32[np.ndarray, "rows width"], seed: int) -> Float32[np.ndarray, "rows 2"]:
    with warnings.catch_warnings():
        # That there is no TensorFlow, and that one processor is used where there is a seed.
        warnings.simplefilter("ignore")
        try:
            from umap import UMAP
        except ImportError as error:
            raise MissingExtraError("a map by UMAP", "map") from error
        made = UMAP(
            n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=seed, n_jobs=1
        )
        return np.asarray(made.fit_transform(vectors), np.float32)


def _pca(vectors: Float32[np.ndarray, "rows width"], _seed: int) -> Float32[np.ndarray, "rows 2"]:
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(vectors), 2), np.float32)
    found = min(2, len(sizes))
    points[:, :found] = left[:, :found] * sizes[:found]
    return points


def _coloured(name: str, values: list[Any]) -> dict[str, Any] | None:
    """A column as a page takes it, or None for one that would colour nothing."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        unit = next((unit for part, unit in _UNITS.items() if part in name), "")
        finite = [v if v is not None and math.isfinite(v) else None for v in values]
        return {"values": finite, "label": f"{name} ({unit})" if unit else name}
    categories = sorted({str(value) for value in known})
    if len(categories) > _MOST_CATEGORIES or not all(isinstance(v, str | bool) for v in known):
        return None
    place = {category: number for number, category in enumerate(categories)}
    return {
        "values": [None if value is None else place[str(value)] for value in values],
        "categories": [escape(category) for category in categories],
    }


def _label(row: dict[str, Any]) -> str:
    """What is shown of a window, as HTML."""
    window = Window(row["start_seconds"], row["end_seconds"])
    caption = f"<br>{escape(row['caption'])}" if row.get("caption") else ""
    return f"<b>{escape(PurePath(row['source']).name)}</b> {window}{caption}"


def _address(row: dict[str, Any]) -> str | None:
    source = row["source"]
    part = f"#t={row['start_seconds']:g},{row['end_seconds']:g}"
    if "://" not in source:
        return Path(source).as_uri() + part
    return source + part if source.startswith(("http://", "https://", "file://")) else None

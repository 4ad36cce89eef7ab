"""Collection tab: the map, a point for every row, and the columns that colour it."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from qwen_audio import CollectionError, OptionError, Projection
from qwen_audio.collection.map_columns import colour_columns, column_colours, column_label
from qwen_audio.collection.projection import UMAP_MIN_ROWS
from qwen_audio.playground.context import report_errors

from .collection import CollectionTab, encoded

__all__ = ["MapCard"]

_STEPS = 65_535
"""A page's coordinates are whole numbers from 0 to this along the longer side of the map."""
_METHODS = ("pca", "umap")


class MapCard:
    """Request handlers of the map. Layouts are computed once for a version of the collection."""

    def __init__(self, tab: CollectionTab) -> None:
        self.tab = tab
        self._locks = {method: threading.Lock() for method in _METHODS}
        self._layouts: dict[str, Projection] = {}

    @report_errors
    def map(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Every row as a point: by UMAP if that has been computed, else by PCA, which is quick."""
        with self._locks["pca"]:
            rows = self.tab.newest_rows()
            pca = self._layouts.get("pca")
            if pca is None or pca.rows is not rows:
                pca = self._projection("pca")
                rows = self.tab.adopt(pca.rows)
                self._layouts["pca"] = pca
        umap = self._layouts.get("umap")
        projection = umap if umap is not None and umap.rows is rows else pca
        self.tab.context.session(request).results["map"] = projection
        collection, spec = self.tab.collection, self.tab.collection.spec
        return {
            "version": rows.version,
            "count": len(rows),
            "collection": collection.name,
            "windows": f"{len(rows):,} window{'s' * (len(rows) != 1)} of {spec.window_seconds:g} s",
            "vectors": f"{spec.tap}, {spec.pooling} pooling",
            "captions": collection.has_captions,
            "umap": len(rows) >= UMAP_MIN_ROWS,
            "colours": _labelled(colour_columns(rows)),
            "columns": _labelled(("recording", *rows.shown_columns)),
            "best": pca.best_column and list(pca.best_column),
            **_points(projection),
        }

    @report_errors
    def layout(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The points of the "version" that a page shows, by another "method".

        The first UMAP takes half a minute or more, most of it to compile UMAP itself.
        """
        method = str(data.get("method"))
        if method not in _METHODS:
            raise OptionError(f"method {method!r:.20}: choose {' or '.join(_METHODS)}")
        with self._locks[method]:
            rows = self.tab.shown_rows(data)
            projection = self._layouts.get(method)
            if projection is None or projection.rows is not rows:
                projection = self._projection(method)
                if getattr(projection.rows, "version", None) != rows.version:
                    raise CollectionError("The collection has changed meanwhile: reload this page")
                projection = dataclasses.replace(projection, rows=rows)  # of two equal ones, one
                self._layouts[method] = projection
        self.tab.context.session(request).results["map"] = projection
        return _points(projection)

    def _projection(self, method: str) -> Projection:
        with self.tab.named_without_folder():
            return self.tab.collection.map(method=method)

    @report_errors
    def colours(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """The colours of all points by a "column": a byte a point, and what they stand for."""
        rows, name = self.tab.shown_rows(data), str(data.get("column"))
        if name not in colour_columns(rows):
            raise OptionError(f"column {name!r:.40} can't colour the points: choose another")
        colours = column_colours(rows, name)
        return {
            "column": name,
            "label": column_label(name),
            "number": colours.is_number,
            "codes": encoded(colours.codes, "u1"),
            "low": colours.low,
            "high": colours.high,
            "cut": colours.is_cut,
            "categories": [list(category) for category in colours.categories],
            "kinds": colours.kinds,
        }


def _labelled(names: tuple[str, ...]) -> list[list[str]]:
    return [[name, column_label(name)] for name in names]


def _points(projection: Projection) -> dict[str, Any]:
    """Coordinates as whole numbers, with the same scale on both axes."""
    low = projection.points.min(axis=0)
    extents = projection.points.max(axis=0) - low
    scale = _STEPS / max(float(extents.max()), 1e-12)
    steps = (projection.points - low) * scale
    return {
        "method": projection.method,
        "fitted": projection.fitted,
        "width": float(extents[0]) * scale,
        "height": float(extents[1]) * scale,
        "x": encoded(steps[:, 0].round(), "<u2"),
        "y": encoded(steps[:, 1].round(), "<u2"),
    }

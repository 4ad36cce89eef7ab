"""The playground's map and list of a large collection in Chromium: until shown, then steps."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Benchmark, Result, Settings, Target, log_progress
from .machine import require_packages
from .playground_latency import chromium_browser
from .playground_server import playground_server
from .this_package import load_model

__all__ = ["playground_map", "playground_map_million"]

_ROWS, _ROWS_QUICK, _MILLION = 100_000, 2_000, 1_000_000
_TAP, _WIDTH = "projector", 256
_WINDOWS_PER_RECORDING = 10
_KINDS = 12
_BLOCK_ROWS = 10_000
_STEPS = 60
_SHOWN = "[data-panel=collection][data-points][data-colour]"
_PAN_SCRIPT = """async (steps) => {
    const frame = () => new Promise((done) => requestAnimationFrame(() => done()));
    const map = playground.collectionMap;
    const spent = [];
    map.zoom(3);
    await frame(); await frame();
    for (let step = 0; step < steps; step += 1) {
        const start = performance.now();
        if (step % 4 === 3) map.zoom(step % 8 === 3 ? 1.2 : 1 / 1.2);
        else map.pan(step % 2 ? 9 : -13, step % 3 ? 5 : -7);
        await frame(); // it is painted in this one
        await frame(); // and shown before this one
        spent.push(performance.now() - start);
    }
    return spent;
}"""
_SCROLL_SCRIPT = """async (steps) => {
    const list = document.querySelector('[data-rows]');
    const spent = [];
    for (let step = 1; step <= steps; step += 1) {
        const start = performance.now();
        list.scrollTop = (step * list.scrollHeight) / (steps + 2);
        list.dispatchEvent(new Event('scroll'));
        await new Promise((done) => {
            const look = () => {
                const names = [...list.querySelectorAll('[role=row] b')];
                if (names.length && names.every((name) => name.textContent !== '…')) done();
                else requestAnimationFrame(look);
            };
            requestAnimationFrame(() => requestAnimationFrame(look));
        });
        spent.push(performance.now() - start);
    }
    return spent;
}"""
_CHANGE_SCRIPT = """([selector, value]) => new Promise((done) => {
    const place = document.querySelector(selector);
    const start = performance.now();
    const seen = new MutationObserver(() => {
        seen.disconnect();
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    });
    seen.observe(document.querySelector('[data-panel=collection]'),
        { attributeFilter: ['data-shown', 'data-colour'] });
    place.value = value;
    const kind = place.tagName === 'SELECT' ? 'change' : 'input';
    place.dispatchEvent(new Event(kind, { bubbles: true }));
})"""


def _measure(rows: int, with_umap: bool, settings: Settings) -> Result:
    """Until the map of a collection is shown, once its layout is there; and steps on it."""
    require_packages("gradio", "playwright", "lancedb", "umap")
    count = _ROWS_QUICK if settings.quick else rows
    collection = settings.work / f"map_{count}.lance"
    if not collection.exists():
        with tempfile.TemporaryDirectory(dir=settings.work) as folder:
            made = Path(folder) / collection.name
            _write_collection(made, count, settings)
            shutil.move(made, collection)
    with (
        tempfile.TemporaryDirectory() as folder,
        playground_server(settings, folder, "--collection", str(collection)) as (url, _),
        chromium_browser() as chromium,
    ):
        page, first_seconds = _open_map(chromium, url, with_umap)
        umap_seconds = None
        if with_umap:
            start = time.perf_counter()
            page.wait_for_selector("[data-panel=collection][data-method=umap]")
            umap_seconds = time.perf_counter() - start
        page.close()
        shown = []
        for _ in range(1 if settings.quick else settings.rounds):
            page, seconds = _open_map(chromium, url, with_umap)
            shown.append(seconds)
            log_progress(f"  {seconds:.2f} s until shown")
            if len(shown) < settings.rounds:
                page.close()
        moved = page.evaluate(_PAN_SCRIPT, _STEPS)
        scrolled = page.evaluate(_SCROLL_SCRIPT, 20)
        filtered = page.evaluate(_CHANGE_SCRIPT, ["[data-filter]", "kind 3"])
        coloured = page.evaluate(_CHANGE_SCRIPT, ["select[data-colour]", "peak_dbfs"])
        memory = page.evaluate("() => performance.memory.usedJSHeapSize")
    figures = {
        "rows": count,
        "first_seconds": first_seconds,
        "umap_seconds": umap_seconds,
        "shown_seconds": max(shown),
        "step_median_ms": float(np.median(moved)),
        "step_p95_ms": float(np.quantile(moved, 0.95)),
        "scroll_p95_ms": float(np.quantile(scrolled, 0.95)),
        "filter_ms": filtered,
        "colour_ms": coloured,
        "page_heap_mb": memory / 1e6,
    }
    return Result(
        what=f"the map of {count} windows in the playground's page, in headless Chromium without a "
        "GPU: the 95th percentile of steps of panning and zooming, each until it is on the screen; "
        f"the slowest of {len(shown)} openings of the tab until points, colours and rows are there "
        "(their layout is computed before); the first opening, with PCA of all rows; scrolling of "
        "the list until its rows are there; a filter, which waits 200 ms for more letters; another "
        "column's colours",
        dtype="float16",
        figures={name: value for name, value in figures.items() if value is not None},
        ratio=figures["step_p95_ms"] or 0.0,
        target=Target(200, at_most=True, unit=" ms"),
        conditions={"shown in 3 s": max(shown) <= 3} if count <= _ROWS else {},
        packages=("gradio", "lancedb", "umap-learn"),
    )


playground_map: Benchmark = partial(_measure, _ROWS, True)
playground_map_million: Benchmark = partial(_measure, _MILLION, False)


def _open_map(chromium: Any, url: str, with_umap: bool) -> tuple[Any, float]:
    """An open page that shows the map, and the seconds from the click on its tab."""
    page = chromium.new_page()
    if not with_umap:  # which would use the processor meanwhile
        page.route("**/queue/join*", _hold_umap)
    page.set_default_timeout(600_000)
    page.goto(url)
    page.wait_for_selector(".pg-has-recording [data-pipeline] li")
    start = time.perf_counter()
    page.click("[data-tab=collection]")
    page.wait_for_selector(_SHOWN)
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-rows] b')].some((b) => b.textContent !== '…')"
    )
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return page, time.perf_counter() - start


def _hold_umap(route: Any) -> None:
    """Let a request for UMAP wait for ever, and others through."""
    if '"umap"' not in (route.request.post_data or ""):
        route.continue_()


def _write_collection(path: Path, rows: int, settings: Settings) -> None:
    """Vectors around some hundred centres, whose kinds they have as a column."""
    import pyarrow as pa

    import qwen_audio as qa

    model = load_model("embedded", "float32", settings.threads)
    collection = qa.Collection.create(path, model, tap=_TAP, describe=True)
    table = collection.table
    table.add_columns([pa.field("kind", pa.string()), pa.field("peak_dbfs", pa.float64())])
    schema = table.schema

    def batches() -> Iterator[Any]:
        random = np.random.default_rng(0)
        centres = random.standard_normal((300, 24)) @ random.standard_normal((24, _WIDTH)) / 5
        for first in range(0, rows, _BLOCK_ROWS):
            size = min(_BLOCK_ROWS, rows - first)
            recordings = np.arange(first, first + size) // _WINDOWS_PER_RECORDING
            windows = np.arange(first, first + size) % _WINDOWS_PER_RECORDING
            chosen = (recordings * 7919) % len(centres)
            vectors = centres[chosen] + 0.4 * random.standard_normal((size, _WIDTH))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            kinds = chosen % _KINDS
            values: dict[str, Any] = {
                "source": [f"/music/{number % 97}/{number:07}.flac" for number in recordings],
                "window": windows,
                "start_seconds": 10.0 * windows,
                "end_seconds": 10.0 * windows + 10,
                "duration_seconds": np.full(size, 10.0 * _WINDOWS_PER_RECORDING),
                "caption": [
                    f"A recording of the kind {kind}, window {w}"
                    for kind, w in zip(kinds, windows, strict=True)
                ],
                "norm": random.uniform(5, 9, size),
                "kind": [f"kind {kind}" for kind in kinds],
                "peak_dbfs": random.uniform(-40, 0, size),
            }
            yield pa.RecordBatch.from_arrays(
                [
                    pa.FixedSizeListArray.from_arrays(
                        pa.array(vectors.astype(np.float16).ravel()), _WIDTH
                    )
                    if field.name == "vector"
                    else pa.array(values.get(field.name, [None] * size), field.type)
                    for field in schema
                ],
                schema=schema,
            )

    table.add(pa.RecordBatchReader.from_batches(schema, batches()))

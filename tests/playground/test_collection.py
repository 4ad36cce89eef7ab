"""Handlers of the Collection tab: rows, the map, searches."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.tabs.audio import AudioTab
from qwen_audio.playground.tabs.collection import CollectionTab
from qwen_audio.playground.tabs.map import MapCard
from qwen_audio.playground.tabs.search import SearchCard
from recordings import write_wav

ROWS = 15
"""Too few for UMAP."""


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


def wave(seed: int, seconds: float = 0.2) -> Any:
    random = np.random.default_rng(seed)
    samples = 0.1 * random.standard_normal(round(16_000 * seconds)) * random.uniform(0.1, 1)
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, model: qa.AudioModel) -> qa.Collection:
    """Short recordings, the last with two windows, and columns of kinds and numbers."""
    folder = tmp_path_factory.mktemp("fifteen")
    rows: list[dict[str, Any]] = []
    for seed in range(ROWS - 1):
        seconds = 0.2 if seed < ROWS - 2 else 0.4
        path = folder / f"{seed:02}.wav"
        path.write_bytes(write_wav(wave(seed, seconds)[None], 16_000))
        level = float("nan") if seed == 0 else float(seed)
        rows.append({"source": str(path), "peak_dbfs": level, "kind": "ab"[seed % 2]})
    made = qa.Collection.create(folder / "fifteen.lance", model, tap="mel", window_seconds=0.2)
    made.index(rows)
    assert len(made) == ROWS
    return made


@pytest.fixture
def tab(collection: qa.Collection) -> CollectionTab:
    return CollectionTab(AppContext(collection.model, Limits(), collection))


def decoded(text: str, dtype: str) -> Any:
    return np.frombuffer(base64.b64decode(text), dtype)


def source(collection: qa.Collection, number: int) -> str:
    return str(collection.path.parent / f"{number:02}.wav")


def test_the_map_has_a_point_for_every_row(collection: qa.Collection, tab: CollectionTab) -> None:
    answer = MapCard(tab).map({"n": 3}, Page())
    assert (answer["n"], answer["method"], answer["count"]) == (3, "pca", ROWS)
    assert (answer["umap"], answer["fitted"], answer["captions"]) == (False, ROWS, False)
    points = np.stack([decoded(answer[axis], "<u2") for axis in "xy"], axis=1).astype(float)
    made = collection.map(method="pca").points
    scale = 65_535 / (made.max(0) - made.min(0)).max()
    np.testing.assert_allclose(points, (made - made.min(0)) * scale, atol=0.6)
    assert answer["width"] == pytest.approx(np.ptp(points[:, 0]), abs=1)
    assert ["peak_dbfs", "peak level (dBFS)"] in answer["colours"]
    assert not {"source_bytes", "content_hash"} & {name for name, _ in answer["columns"]}
    assert answer["best"][0] in [name for name, _ in answer["colours"]]
    assert json.dumps(answer, allow_nan=False)
    assert str(collection.path.parent) not in str(answer)


def test_a_layout_is_computed_once(tab: CollectionTab, monkeypatch: pytest.MonkeyPatch) -> None:
    map_tab = MapCard(tab)
    answer = map_tab.map({}, Page())
    made = tab.context.session(Page()).results["map"]
    assert made.rows is tab.newest_rows()
    monkeypatch.setattr(type(tab.collection), "map", None)
    assert map_tab.map({}, Page()) == answer
    points = map_tab.layout({"version": answer["version"], "method": "pca"}, Page())
    assert points["x"] == answer["x"]
    assert tab.context.session(Page()).results["map"] is made
    message = map_tab.layout({"version": answer["version"], "method": "t-sne"}, Page())["problem"]
    assert message == "method 't-sne': choose pca or umap."


@pytest.mark.slow
def test_umap_replaces_pca_when_it_is_there(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not compiled, which takes longer than it runs.
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    (tmp_path / "long.wav").write_bytes(write_wav(wave(0, 3.6)[None], 16_000))
    windows = qa.Collection.create(tmp_path / "w.lance", model, tap="mel", window_seconds=0.2)
    windows.index(tmp_path)
    map_tab = MapCard(CollectionTab(AppContext(model, Limits(), windows)))
    shown = map_tab.map({}, Page())
    assert (shown["method"], shown["umap"], shown["count"]) == ("pca", True, 18)
    request = {"version": shown["version"], "method": "umap"}
    points = map_tab.layout(request, Page())
    assert (points["method"], points["fitted"]) == ("umap", 18)
    assert map_tab.map({}, Page())["x"] == points["x"] != shown["x"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)
        fresh = MapCard(map_tab.tab)
        message = fresh.layout(request, Page())["problem"]
    assert message.endswith("pip install 'qwen-audio-playground[map]'.")
    windows.remove(tmp_path / "long.wav")
    assert "reload it" in map_tab.layout({"version": -1, "method": "umap"}, Page())["problem"]
    message = map_tab.map({}, Page())["problem"]
    assert message == "w.lance has no rows to project."


def test_colours_of_a_column(tab: CollectionTab) -> None:
    map_tab = MapCard(tab)
    version = map_tab.map({}, Page())["version"]
    kind = map_tab.colours({"version": version, "column": "kind"}, Page())
    assert (kind["number"], kind["kinds"]) == (False, 2)
    assert kind["categories"] == [["b", 8], ["a", 7]]  # the last recording has two windows
    assert decoded(kind["codes"], "u1").tolist() == [1, 0] * 7 + [0]
    level = map_tab.colours({"version": version, "column": "peak_dbfs"}, Page())
    assert (level["low"], level["high"], level["label"]) == (1, 13, "peak level (dBFS)")
    assert decoded(level["codes"], "u1")[[0, 1, 14]].tolist() == [255, 0, 254]
    for column in ("source_bytes", "nonsense", None, "source"):
        message = map_tab.colours({"version": version, "column": column}, Page())["problem"]
        assert "can't colour the points" in message
    assert "reload it" in map_tab.colours({"version": -1, "column": "kind"}, Page())["problem"]


def test_rows_by_index_order_and_filter(collection: qa.Collection, tab: CollectionTab) -> None:
    version = MapCard(tab).map({}, Page())["version"]
    answer = tab.rows({"version": version, "indices": [14, 0]}, Page())
    last, first = answer["rows"]
    assert (last["name"], last["start"], last["end"]) == ("13.wav", 0.2, 0.4)
    assert (first["name"], first["caption"]) == ("00.wav", None)
    assert dict(map(tuple, first["columns"]))["peak_dbfs"] == "none"
    assert last["id"].endswith("-1")
    assert str(collection.path.parent) not in str(answer)
    order = tab.order({"version": version, "column": "peak_dbfs", "descending": True}, Page())
    assert decoded(order["order"], "<i4").tolist() == [13, 14, *range(12, -1, -1)]
    matches = tab.filter({"version": version, "text": "13.wav B"}, Page())["matches"]
    assert np.flatnonzero(decoded(matches, "u1")).tolist() == [13, 14]
    for indices in (None, "0", [15], [-1], [True], [0.0], list(range(9)) * 100):
        problem = tab.rows({"version": version, "indices": indices}, Page())["problem"]
        assert "internal" not in problem
    assert "no column" in tab.order({"version": version, "column": "x"}, Page())["problem"]


def test_a_row_is_played_and_opened_by_its_id(
    collection: qa.Collection, tab: CollectionTab
) -> None:
    context, rows = tab.context, tab.newest_rows()
    row_id = rows.id(14)
    played = tab.play({"row": row_id}, Page())
    assert (played["name"], played["start"]) == ("13.wav", 0.2)
    opened = AudioTab(context).open({"row": row_id}, Page())
    assert (opened["row"], opened["name"], opened["part"]) == (row_id, "13.wav", True)
    assert (opened["start"], opened["end"], opened["duration"]) == (0.2, 0.4, 0.4)
    clip = context.session(Page()).open_clip
    expected = collection.waveform(source(collection, 13), 1).samples
    np.testing.assert_array_equal(clip.window_waveform.samples, expected)
    assert not AudioTab(context).open({"row": rows.id(0)}, Page())["part"]  # all of it
    assert "has no row" in AudioTab(context).open({"row": "0-0"}, Page())["problem"]
    assert "has no row" in tab.play({"row": None}, Page())["problem"]


def test_of_a_recording_beyond_the_limit_only_the_window_is_opened(
    collection: qa.Collection,
) -> None:
    limits = Limits(recording_seconds=0.3)
    tab = CollectionTab(AppContext(collection.model, limits, collection))
    clip = tab.load_row(tab.newest_rows().id(14))
    assert clip.waveform.duration_seconds == pytest.approx(0.2)
    assert clip.window_of_many is None


def test_a_missing_file_is_named_without_its_folder(
    collection: qa.Collection, tab: CollectionTab, tmp_path: Path
) -> None:
    gone = Path(source(collection, 0))
    row_id = tab.newest_rows().id(0)
    gone.rename(tmp_path / gone.name)
    try:
        messages = [
            tab.play({"row": row_id}, Page())["problem"],
            AudioTab(tab.context).open({"row": row_id}, Page())["problem"],
        ]
    finally:
        (tmp_path / gone.name).rename(gone)
    assert (
        messages == ["00.wav can't be opened: it was changed or deleted after it was indexed."] * 2
    )


def test_search_leaves_out_the_recording_itself(
    collection: qa.Collection, tab: CollectionTab
) -> None:
    search, path = SearchCard(tab), source(collection, 5)
    session = tab.context.session(Page())
    # As an upload, which has no path.
    session.clip = Clip(qa.Waveform(qa.load_waveform(path).samples, "05.wav"))
    answer = search.search({}, Page())
    expected = collection.search(path, limit=12)
    assert [row["name"] for row in answer["results"]] == [hit.name for hit in expected]
    assert [row["score"] for row in answer["results"]] == [hit.score for hit in expected]
    assert "05.wav" not in [row["name"] for row in answer["results"]]
    assert (answer["left_out"], answer["metric"]) == ("the recording itself", "cosine")
    assert (answer["query"]["clip"], answer["query"]["row"]) == ("05.wav", None)
    with_itself = search.search({"include_self": True}, Page())
    assert (with_itself["results"][0]["name"], with_itself["left_out"]) == ("05.wav", None)

    other = qa.Waveform(session.clip.waveform.samples * 0.5, "05.wav")
    session.clip = Clip(other)  # another one of the same name and length
    assert search.search({}, Page())["left_out"] is None
    session.clip = tab.load_row(tab.newest_rows().id(14))
    names = [row["name"] for row in search.search({}, Page())["results"]]
    assert "13.wav" not in names


def test_the_nearest_neighbours_of_a_row(collection: qa.Collection, tab: CollectionTab) -> None:
    rows = tab.newest_rows()
    answer = SearchCard(tab).search({"row": rows.id(13)}, Page())
    expected = collection.search(like=f"{rows[13]['source']}#0", limit=12)
    assert [(r["name"], r["start"], r["score"]) for r in answer["results"]] == [
        (hit.name, hit.start_seconds, hit.score) for hit in expected
    ]
    assert 13 not in [row["index"] for row in answer["results"]]
    assert 14 in [row["index"] for row in answer["results"]]  # the same recording's other window
    assert (answer["query"]["name"], answer["left_out"]) == ("13.wav", "the window itself")
    assert len(tab.context.session(Page()).search_results) == 12
    assert "has no row" in SearchCard(tab).search({"row": 7}, Page())["problem"]


def test_problems_of_a_search_name_no_folder(collection: qa.Collection, tab: CollectionTab) -> None:
    search = SearchCard(tab)
    assert "choose one in the Audio tab first" in search.search({}, Page())["problem"]
    message = search.search({"text": "drums"}, Page())["problem"]
    assert message.startswith("fifteen.lance has no captions")
    context = AppContext(collection.model, Limits())
    message = MapCard(CollectionTab(context)).map({}, Page())["problem"]
    assert message.startswith("This playground has no collection")
    assert "has no collection" in AudioTab(context).open({"row": "0-0"}, Page())["problem"]


ODD_VALUES: list[Any] = [
    *(None, True, -1, 2**53, 1.5, "", "x", "mel", [], [[0]], {"a": 1}, "\ud800", "0" * 16 + "-0"),
    "'; DROP TABLE rows; --",
]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_no_value_is_an_internal_error(tab: CollectionTab, value: Any) -> None:
    map_tab, search = MapCard(tab), SearchCard(tab)
    version = map_tab.map({}, Page())["version"]
    handlers = [tab.rows, tab.order, tab.filter, tab.play, map_tab.layout, map_tab.colours]
    for handler in [*handlers, search.search]:
        for name in ("indices", "column", "text", "row", "method", "include_self", "version"):
            answer = handler({"version": version, name: value}, Page())
            assert "internal error" not in answer.get("problem", ""), (handler, name)

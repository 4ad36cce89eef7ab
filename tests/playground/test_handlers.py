"""Sessions, limits and the tabs' request handlers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from checkpoints import random_checkpoint
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.sessions import Clip
from qwen_audio.playground.tabs.audio import AudioTab
from qwen_audio.playground.tabs.compare import CompareTab
from qwen_audio.playground.tabs.download import Downloads
from qwen_audio.playground.tabs.hidden_states import HiddenStatesTab
from qwen_audio.playground.tabs.search import SearchTab
from qwen_audio.playground.tabs.snippets import Snippets
from recordings import write_wav

LIMITS = Limits(upload_bytes=1000, memory_bytes=1_000_000)


def clip(seconds: float) -> Clip:
    return Clip(qa.Waveform(np.full(round(seconds * 16_000), 0.1, np.float32), "a.wav"))


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> qa.Collection:
    """A collection of 15 short windows, too few for UMAP, with a column that holds a NaN."""
    folder = tmp_path_factory.mktemp("fifteen")
    sounds = [wave(seed) for seed in range(15)]
    for number, samples in enumerate(sounds):
        (folder / f"{number}.wav").write_bytes(write_wav(samples[None], 16_000))
    made = qa.Collection.create(folder / "fifteen.lance", qa.load(), tap="mel")
    rows: list[dict[str, Any]] = [
        {"source": str(folder / f"{k}.wav"), "level": float(k)} for k in range(15)
    ]
    made.index([rows[0] | {"level": float("nan")}, *rows[1:]])
    return made


def wave(seed: int) -> Any:
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal(3200) * random.uniform(0.1, 1)).astype(np.float32)


@pytest.mark.slow
def test_the_map_is_computed_once_and_names_no_folder(collection: qa.Collection) -> None:
    search_tab = SearchTab(AppContext(collection.model, LIMITS, collection))
    answer = search_tab.map({"n": 3}, Page())
    made = collection.map()
    assert (answer["n"], answer["method"], answer["results"]) == (3, "PCA", [])
    np.testing.assert_allclose([answer["x"], answer["y"]], made.points.T, atol=1e-4)
    columns = {column["name"]: column["values"] for column in answer["columns"]}
    assert columns["level"][made.values("source").index(source_path(collection, 0))] is None
    assert json.dumps(answer, allow_nan=False)
    assert str(collection.path.parent) not in str(
        {k: v for k, v in answer.items() if k != "columns"}
    )
    assert search_tab.projection()[0] is search_tab.projection()[0]
    clip_info = search_tab.play({"point": 7, "version": answer["version"]}, Page())
    assert clip_info["name"] == answer["names"][7]

    context = search_tab.context
    context.session(Page()).clip = Clip(qa.load_waveform(made.rows[5]["source"]))
    found = search_tab.search({}, Page())
    assert len(found["points"]) == len(found["results"]) == 12
    assert 5 in found["points"]
    assert search_tab.map({}, Page())["results"] == found["points"]


def source_path(collection: qa.Collection, number: int) -> str:
    return str(collection.path.parent / f"{number}.wav")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"point": 15}, "The map has 15 points"),
        ({"point": -1}, "The map has 15 points"),
        ({"point": "0"}, "has changed: reload"),
        ({"point": 0, "version": -1}, "has changed: reload"),
        ({"result": 0}, "search again"),
        ({"result": -1, "point": 0}, "search again"),
        ({"result": "/etc/passwd"}, "search again"),
        ({}, "has changed: reload"),
    ],
)
def test_only_points_and_results_are_played(
    collection: qa.Collection, payload: dict[str, Any], message: str
) -> None:
    search_tab = SearchTab(AppContext(collection.model, LIMITS, collection))
    assert "search again" in search_tab.play({"point": 0}, Page())["problem"]  # there is no map yet
    version = search_tab.map({}, Page())["version"]
    assert message in search_tab.play({"version": version, **payload}, Page())["problem"]


def test_a_missing_file_is_named_without_its_folder(
    collection: qa.Collection, tmp_path: Path
) -> None:
    search_tab = SearchTab(AppContext(collection.model, LIMITS, collection))
    version = search_tab.map({}, Page())["version"]
    gone = Path(collection.map().rows[0]["source"])
    gone.rename(tmp_path / gone.name)
    try:
        message = search_tab.play({"point": 0, "version": version}, Page())["problem"]
    finally:
        (tmp_path / gone.name).rename(gone)
    assert (
        message == f"{gone.name} can't be played: it was changed or deleted after it was indexed."
    )


def test_without_umap_the_map_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    (tmp_path / "long.wav").write_bytes(write_wav(np.tile(wave(0), 16)[None], 16_000))
    model = qa.load()
    windows = qa.Collection.create(tmp_path / "windows.lance", model, tap="mel", window_seconds=0.2)
    windows.index(tmp_path)
    assert len(windows) == 16
    message = SearchTab(AppContext(model, LIMITS, windows)).map({}, Page())["problem"]
    assert message.endswith("pip install 'qwen-audio-playground[map]'.")
    assert (
        SearchTab(AppContext(model, LIMITS))
        .map({}, Page())["problem"]
        .startswith("This playground has no collection")
    )


ODD_VALUES: list[Any] = [
    *(None, True, -1, 2**53, 1.5, "", "x", "mel", "map", "csv", "lm." + "9" * 5000, [], {"a": 1}),
    "guitar.flac/../speech.flac",
]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_no_value_is_an_internal_error(collection: qa.Collection, value: Any) -> None:
    context = AppContext(collection.model, Limits(), collection)
    context.session(Page()).clip = clip(1)
    names = ("window", "ticket", "example", "tap", "view", "format", "result", "point", "version")
    handlers: list[Any] = [AudioTab(context).open, HiddenStatesTab(context).view]
    handlers += [HiddenStatesTab(context).time_tap, CompareTab(context).compare]
    handlers += [SearchTab(context).play, Downloads(context).file, Snippets(context).snippets]
    handlers.append(lambda data, page: SearchTab(context).search({"text": str(value)}, page))
    for handler in handlers:
        for data in (*({name: value, "n": value} for name in names), dict.fromkeys(names, value)):
            answer = handler(data, Page())
            assert "internal error" not in answer.get("problem", ""), (handler, data)
            assert answer["n"] is None or type(answer["n"]) is int


@pytest.mark.slow
def test_search_results_stay_and_comparisons_are_cleared(
    collection: qa.Collection,
) -> None:
    context = AppContext(collection.model, Limits(), collection)
    audio_tab, downloads, snippets = AudioTab(context), Downloads(context), Snippets(context)
    audio_tab.open({"example": "guitar.flac"}, Page())
    SearchTab(context).search({}, Page())
    context.session(Page()).results |= {"map": collection, "lens": None, "ask": None}
    CompareTab(context).compare({"example": "speech.flac"}, Page())
    assert "speech.flac" in snippets.snippets({"view": "compare"}, Page())["python"]

    audio_tab.open({"example": "djembe.flac"}, Page())
    assert "guitar.flac" in snippets.snippets({"view": "search"}, Page())["python"]
    assert (
        downloads.file({"view": "search", "format": "csv"}, Page())["name"] == "fifteen.search.csv"
    )
    assert "problem" not in snippets.snippets({"view": "map"}, Page())
    for view in ("compare", "lens", "ask"):
        payload = {"view": view, "format": "csv"}
        assert "shows nothing to download yet" in downloads.file(payload, Page())["problem"], view


def test_a_models_folder_is_named_without_its_path(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "other", width=32, encoder_layers=1, lm_layers=1)
    context = AppContext(qa.load(folder), Limits())
    AudioTab(context).open({"example": "guitar.flac"}, Page())
    lines = Snippets(context).snippets({"view": "hidden_states", "tap": "mel"}, Page())
    assert lines["command"].endswith("--model other")
    assert "qa.load('other')" in lines["python"]
    assert AppContext(qa.load(), Limits()).model_name == "embedded"
    strange = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    folder.rename(strange)
    context = AppContext(qa.load(strange), Limits())
    assert context.model_name == "caf\\xe9"  # the page can't hold what UTF-8 can't

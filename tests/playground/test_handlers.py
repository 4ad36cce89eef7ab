"""Sessions, limits and the tabs' request handlers."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from checkpoints import random_checkpoint
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.sessions import Clip, SessionStore
from qwen_audio.playground.tabs.ask import CHAT, PLAIN, WHOLE, AskTab
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


def test_the_least_recently_used_session_is_removed() -> None:
    sessions = SessionStore(LIMITS)  # of a megabyte: 15 s of sound
    first, second = sessions.get("first"), sessions.get("second")
    first.clip, second.clip = clip(6), clip(6)
    assert sessions.get("first") is first
    first.clip = clip(12)
    assert sessions.get("third").clip is None
    assert len(sessions) == 2  # the second, quiet for longest, is gone
    assert sessions.get("first") is first
    assert sessions.get("second") is not second


def test_idle_and_closed_sessions_are_removed() -> None:
    sessions = SessionStore(dataclasses.replace(LIMITS, idle_seconds=1e-9))
    sessions.get("idle").clip = clip(1)
    sessions.get("new")
    assert len(sessions) == 1
    sessions.remove("new")
    assert len(sessions) == 0
    with pytest.raises(qa.AudioError, match="choose one in the Audio tab first"):
        _ = sessions.get("idle").open_clip


def test_selecting_a_window() -> None:
    long = clip(65)
    assert [str(window) for window in long.windows] == ["0:00–0:30", "0:30–1:00", "1:00–1:05"]
    long.tap_seconds["mel"] = 1.0
    long.select_window(2)
    assert long.window_waveform.duration_seconds == 5.0
    assert long.tap_seconds == {}
    for index in (3, -1, "0", None, True, 0.0, [0], 10**20):
        with pytest.raises(qa.AudioError, match="has 3 windows"):
            long.select_window(index)


def test_limits_are_positive() -> None:
    assert (LIMITS.recording_text, Limits().upload_text) == ("10 minutes", "64 MB")
    assert Limits(recording_seconds=45).recording_text == "45 seconds"
    with pytest.raises(qa.OptionError, match="queue_size=0"):
        Limits(queue_size=0)


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


def test_the_recording_that_was_chosen_last_stays_open(
    collection: qa.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = AppContext(collection.model, Limits())
    begun, finish, load = threading.Event(), threading.Event(), context.load

    def load_slowly(data: dict[str, Any]) -> Clip:
        if data["example"] == "guitar.flac":
            begun.set()
            finish.wait(30)
        return load(data)

    monkeypatch.setattr(context, "load", load_slowly)
    open_recording = AudioTab(context).open
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(open_recording, {"example": "guitar.flac"}, Page())
        assert begun.wait(30)
        assert open_recording({"example": "speech.flac"}, Page())["name"] == "speech.flac"
        finish.set()
        assert "opened meanwhile" in slow.result()["problem"]
    assert context.session(Page()).open_clip.name == "speech.flac"


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


@pytest.mark.slow
def test_a_follow_up_snippet_includes_earlier_questions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = AppContext(qa.load(), Limits())
    ask_tab, snippets = AskTab(context), Snippets(context)
    AudioTab(context).open({"example": "guitar.flac"}, Page())
    for question, follow_up in (("Is this music?", False), ("How loud is it?", True)):
        list(ask_tab.ask(question, CHAT, follow_up, WHOLE, Page()))
    lines = snippets.snippets({"view": "ask"}, Page())
    assert lines["command"] == ""
    assert lines["python"].splitlines()[-2:] == [
        "session.ask('Is this music?', chat=True)",
        "print(session.ask('How loud is it?', chat=True, follow_up=True))",
    ]
    monkeypatch.chdir(Path(__file__).parents[2] / "examples")
    exec(compile(lines["python"], "lines", "exec"), {})
    message = context.session(Page()).answers[0]["text"]
    assert capsys.readouterr().out.strip() == message

    list(ask_tab.ask("Are there drums?", CHAT, False, WHOLE, Page()))  # another conversation
    assert "music?" not in snippets.snippets({"view": "ask"}, Page())["python"]
    *_, refused = ask_tab.ask("And flutes?", PLAIN, True, WHOLE, Page())
    assert "choose Chat (Instruct), or clear Follow up." in refused
    assert len(context.session(Page()).answers) == 3


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


@pytest.mark.slow
def test_the_adapter_is_shown_without_its_path(tmp_path: Path) -> None:
    from qwen_audio.playground.app import _header  # here, as Gradio takes seconds to import

    folder = random_checkpoint(tmp_path / "other", width=32, encoder_layers=1, lm_layers=1)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    adapter = write_adapter(tmp_path / "<tuned>", model)
    context = AppContext(qa.load(folder, adapter=adapter), Limits())
    header = _header(context)
    assert "Model: <b>other</b>, with the adapter <b>&lt;tuned&gt;</b>" in header
    assert str(tmp_path) not in header
    AudioTab(context).open({"example": "guitar.flac"}, Page())
    lines = Snippets(context).snippets({"view": "hidden_states", "tap": "mel"}, Page())
    assert lines["command"].endswith("--model other --adapter '<tuned>'")
    assert "qa.load('other', adapter='<tuned>')" in lines["python"]
    embedded = AppContext(qa.load(), Limits())
    assert "with the adapter" not in _header(embedded)


ALLOWED_INTERNALS = {
    "qwen_audio.analysis.files": {"csv_bytes", "json_value"},
    "qwen_audio.analysis.html_text": {"script_json"},  # a concern of pages only
    "qwen_audio.audio.examples": {"example_paths"},  # where the package has them
    "qwen_audio.audio.waveform": {"SAMPLE_RATE_HZ"},  # a constant of WAV files
    "qwen_audio.errors": {"check_extra", "counted"},  # of Gradio; of counts as text
    "qwen_audio.paths": {"printable"},  # names of folders that aren't UTF-8
    "qwen_audio.weights.device": {"trim_heap"},  # a server's concern only
}


def test_the_playground_uses_only_the_public_api() -> None:
    folder = Path(qa.__file__).parent / "playground"
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
                assert not names & {"torch", "transformers", "qwen_audio", "lancedb"}, path
                # Arrays come from the package; only payloads.py scales them to images and sound.
                assert "numpy" not in names or path.name == "payloads.py", path
            elif isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                module = str(node.module)
                if module == "qwen_audio":
                    assert names <= set(dir(qa)), (path.name, names)
                elif module.startswith("qwen_audio.") and not module.startswith(
                    ("qwen_audio.playground.", "qwen_audio.serve.")
                ):
                    assert names <= ALLOWED_INTERNALS.get(module, set()), (path.name, module, names)
                assert node.level < 2, path
            elif isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                private = node.attr.startswith("_") and not owner.startswith(("self", "cls"))
                assert not private, (path.name, ast.unparse(node))

"""Sessions, limits and the tabs' request handlers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from checkpoints import random_checkpoint
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.sessions import Clip
from qwen_audio.playground.tabs.ask import CHAT, PLAIN, WHOLE, AskTab
from qwen_audio.playground.tabs.audio import AudioTab
from qwen_audio.playground.tabs.collection import CollectionTab
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


ODD_VALUES: list[Any] = [
    *(None, True, -1, 2**53, 1.5, "", "x", "mel", "map", "csv", "lm." + "9" * 5000, [], {"a": 1}),
    "guitar.flac/../speech.flac",
]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_no_value_is_an_internal_error(collection: qa.Collection, value: Any) -> None:
    context = AppContext(collection.model, Limits(), collection)
    context.session(Page()).clip = clip(1)
    names = ("window", "ticket", "example", "tap", "view", "format", "version")
    handlers: list[Any] = [AudioTab(context).open, HiddenStatesTab(context).view]
    handlers += [HiddenStatesTab(context).time_tap, CompareTab(context).compare]
    handlers += [Downloads(context).file, Snippets(context).snippets]
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
    SearchTab(CollectionTab(context)).search({}, Page())
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

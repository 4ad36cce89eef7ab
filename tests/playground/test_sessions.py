"""Sessions and their recordings, the Audio tab's handler, and the page's document."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
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
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.document import page_document, page_html
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.sessions import SessionStore
from qwen_audio.playground.tabs.audio import AudioTab

ROOT = Path(__file__).parents[2]
LIMITS = Limits(upload_bytes=1000, memory_bytes=1_000_000)


def clip(seconds: float) -> Clip:
    return Clip(qa.Waveform(np.full(round(seconds * 16_000), 0.1, np.float32), "a.wav"))


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


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


def test_selecting_seconds() -> None:
    long = clip(65)
    long.select_window(1)
    long.tap_seconds["mel"] = 1.0
    long.select_part([40.0, 62.5])
    assert (long.window, long.window_of_many) == (qa.Window(40.0, 62.5),) * 2
    assert long.window_waveform.duration_seconds == 22.5
    assert long.tap_seconds == {}
    long.select_part([40.0, 65.005])  # links are rounded
    assert long.window == qa.Window(40.0, 65.0)
    long.select_part(None)
    assert long.window == long.windows[1]
    for part in (
        *([], [1], [1, 2, 3], "1-2", [None, 2], [True, 2], [2, 1], [1, 1.03], [-1, 2], [1, 31.1]),
        *([60, 66], [66, 67], [float("nan"), 2], [1, float("inf")], {"a": 1}, 1.5),
    ):
        with pytest.raises(qa.AudioError, match=r"part|select seconds"):
            long.select_part(part)
    assert long.part is None


def test_a_token_opens_the_audio_of_one_recording() -> None:
    sessions = SessionStore(Limits())
    session = sessions.get("page")
    session.open(clip(1))
    token = session.open_clip.audio_token
    assert sessions.recording(token) is session.open_clip.waveform
    assert sessions.recording(token[:-1] + "x") is None
    session.open(clip(1))
    assert sessions.recording(token) is None


@pytest.mark.slow
def test_the_recording_that_was_chosen_last_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    context = AppContext(qa.load(), Limits())
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


@pytest.mark.slow
def test_a_part_is_opened_with_its_recording() -> None:
    tab = AudioTab(AppContext(qa.load(), Limits()))
    opened = tab.open({"example": "guitar.flac", "part": [1, 2]}, Page())
    assert (opened["start"], opened["end"], opened["part"]) == (1.0, 2.0, True)
    assert opened["caption"] is None  # that is of the whole recording
    shapes = {stage["stage"]: stage["shape"] for stage in opened["pipeline"]}
    assert shapes["file"] == "1.00 s"
    assert shapes["projector"] == "25 × 256"
    refused = tab.open({"example": "speech.flac", "part": [5, 4]}, Page())
    assert "select seconds of it" in refused["problem"]
    assert tab.context.session(Page()).open_clip.name == "guitar.flac"
    refused = tab.open({"row": "0-1"}, Page())
    assert "has no collection" in refused["problem"]


def test_the_words_are_those_of_the_glossary() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    expected: dict[str, str] = {}
    for line in text.splitlines():
        row = re.fullmatch(r"\| (.+?) \| (.+) \|", line)
        if row and row[1] not in ("term", "---"):
            meaning = re.sub(r"`|\\(?=[|<]|\\)", "", row[2]).replace("\\|", "|")
            expected |= dict.fromkeys(row[1].split(", "), meaning)
    shipped = ROOT / "src" / "qwen_audio" / "playground" / "static" / "glossary.json"
    assert json.loads(shipped.read_text(encoding="utf-8")) == expected


def test_words_that_the_page_explains_are_in_the_glossary() -> None:
    static = ROOT / "src" / "qwen_audio" / "playground" / "static"
    known = json.loads((static / "glossary.json").read_text(encoding="utf-8"))
    used = set()
    for path in (*static.glob("*.html"), *static.glob("*.js")):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'data-word="([^"]+)"', text))
        used |= set(re.findall(r'\bterm\("([^"]+)"', text))
    assert "tap" in used
    assert used <= set(known)


@pytest.mark.slow
def test_the_adapter_is_shown_without_its_path(tmp_path: Path) -> None:

    folder = random_checkpoint(tmp_path / "other", width=32, encoder_layers=1, lm_layers=1)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    adapter = write_adapter(tmp_path / "<tuned>", model)
    context = AppContext(qa.load(folder, adapter=adapter), Limits())
    header = page_html(context)
    assert "Model: <b>other</b>, with the adapter <b>&lt;tuned&gt;</b>" in header
    assert str(tmp_path) not in page_document(context)
    assert "with the adapter" not in page_html(AppContext(qa.load(), Limits()))


ALLOWED_INTERNALS = {
    "qwen_audio.analysis.alignment": {"Alignment", "AlignmentKind", "check_alignment"},
    "qwen_audio.analysis.row_metrics": {"Metric", "check_metric"},
    "qwen_audio.analysis.files": {"csv_bytes", "json_value"},
    "qwen_audio.analysis.html_text": {"script_json"},  # a concern of pages only
    "qwen_audio.audio.examples": {"example_paths"},  # where the package has them
    "qwen_audio.audio.window": {"MIN_SECONDS", "WINDOW_SECONDS"},  # constants of windows
    "qwen_audio.audio.waveform": {"SAMPLE_RATE_HZ"},  # a constant of WAV files
    # How the map's points are coloured, and the rows that it has in common with the table.
    "qwen_audio.collection.map_columns": {"colour_columns", "column_colours", "column_label"},
    "qwen_audio.collection.projection": {"UMAP_MIN_ROWS"},
    "qwen_audio.collection.rows": {"CollectionRows"},
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

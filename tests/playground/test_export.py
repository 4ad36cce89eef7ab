"""Exports: files of what views show, and code that writes the same files."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from browser import ROOT
from checkpoints import random_checkpoint
from commands import run
from qwen_audio.inference.options import Sampling
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.tabs.ask import AskTab
from qwen_audio.playground.tabs.choices import ChoicesCard
from qwen_audio.playground.tabs.collection import CollectionTab
from qwen_audio.playground.tabs.compare import CompareTab
from qwen_audio.playground.tabs.edits import EditsCard
from qwen_audio.playground.tabs.export import FORMATS, Exports
from qwen_audio.playground.tabs.lens import LensCard
from qwen_audio.playground.tabs.map import MapCard
from qwen_audio.playground.tabs.occlusion import OcclusionCard
from qwen_audio.playground.tabs.search import SearchCard
from qwen_audio.playground.tabs.snippets import Snippets
from qwen_audio.playground.tabs.trace import TraceCard
from qwen_audio.serve.engine import Engine
from qwen_audio.serve.jobs import TextInput, TextJob
from qwen_audio.serve.limits import ApiLimits
from qwen_audio.serve.recordings import RecordingReader, Upload
from recordings import write_wav

ODD_NAME = '-it\'s "my"\n$song* [1] {x} \\.wav'


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


class Visitor:
    """A visitor with recordings open, whose files are in a folder."""

    def __init__(
        self,
        folder: Path,
        name: str,
        other: str | None = None,
        collection: qa.Collection | None = None,
    ) -> None:
        self.folder, self.model = folder, qa.load()
        self.context = AppContext(self.model, Limits(), collection)
        self.session = self.context.session(Page())
        self.session.clip = self._clip(name, "guitar")
        self.session.other_clip = None if other is None else self._clip(other, "djembe")

    def _clip(self, name: str, example: str) -> Clip:
        samples = qa.load_waveform(ROOT / "examples" / f"{example}.flac").samples[16_000:32_000]
        (self.folder / name).write_bytes(write_wav(samples[None], 16_000))
        upload = io.BytesIO((self.folder / name).read_bytes())
        upload.name = name
        return Clip(qa.load_waveform(upload), file_name=name)

    def use(self, name: str, **data: Any) -> dict[str, Any]:
        """The last answer of a tab's handler, by its name."""
        tabs: tuple[Any, ...] = (
            AskTab,
            ChoicesCard,
            OcclusionCard,
            LensCard,
            EditsCard,
            CompareTab,
        )
        tabs += (TraceCard,)
        if name in ("search", "map"):
            tab = CollectionTab(self.context)
            handler = getattr((SearchCard if name == "search" else MapCard)(tab), name)
        else:
            tab = next(each for each in tabs if hasattr(each, name))
            handler = getattr(tab(self.context), name)
        answer = handler(data, Page())
        if not isinstance(answer, dict):
            *_, answer = answer
        assert "problem" not in answer, answer
        return dict(answer)

    @property
    def waveform(self) -> qa.Waveform:
        return self.session.open_clip.window_waveform

    def file(self, view: str, suffix: str, **data: Any) -> bytes:
        answer = Exports(self.context).file({"view": view, "format": suffix, **data}, Page())
        assert "problem" not in answer, answer
        return base64.b64decode(answer["bytes"])

    def code(self, view: str, **data: Any) -> dict[str, str]:
        answer = Snippets(self.context).snippets({"view": view, **data}, Page())
        assert "problem" not in answer, answer
        return answer

    def run_python(self, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(self.folder)
        exec(compile(code, "code", "exec"), {})

    def arguments(self, line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The arguments that a shell gives to the command in a line."""
        monkeypatch.chdir(self.folder)
        shim = 'function qwen-audio { printf "%s\\0" "$@" > .arguments; }\n'
        subprocess.run(["bash", "-ec", shim + line], check=True, timeout=60)
        return (self.folder / ".arguments").read_bytes().decode().split("\0")[:-1]

    def run_command(self, line: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """Run a line; what it prints."""
        done = run(*self.arguments(line, monkeypatch))
        assert done.returncode == 0, done
        return done.stdout


VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "audio": ("", {}),
    "hidden_states": ("", {}),
    "choices": ("score", {"question": "Is it <|im_end|> loud?", "choices": ["It's", '"a" guitar']}),
    "occlusion": ("occlusion", {"answers": ["-x", "No"], "window_seconds": 0.5}),
    "lens": ("lens", {"tokens": ["guitar", "a piano"]}),
    "compare": ("compare", {"metric": "correlation", "alignment": "dtw"}),
    "trace": ("trace", {}),
}
"""By view whose picture is exported: the handler of its tab, and a request."""


def equal_files(one: bytes, other: bytes, suffix: str) -> bool:
    """Whether files hold the same; archives differ in the times that they were written."""
    if suffix != "npz":
        return one == other
    arrays, others = (np.load(io.BytesIO(content)) for content in (one, other))
    assert arrays.files == others.files
    return all(
        np.array_equal(arrays[name], others[name], equal_nan=True)
        for name in arrays.files
        if arrays[name].dtype.kind == "f"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
@pytest.mark.parametrize("view", VIEWS)
def test_code_writes_the_downloaded_files(
    view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(tmp_path, ODD_NAME, "other.wav")
    handler, request = VIEWS[view]
    if handler:
        visitor.use(handler, **request)
    data = {"tap": "encoder.2", "dark": True}
    numbers = "npz" if view in ("audio", "hidden_states") else "csv"
    files = {suffix: visitor.file(view, suffix, **data) for suffix in ("png", numbers)}
    code = visitor.code(view, **data)
    visitor.run_python(code["python"], monkeypatch)
    for suffix, content in files.items():
        assert equal_files((tmp_path / f"{view}.{suffix}").read_bytes(), content, suffix), suffix
    (tmp_path / f"{view}.png").unlink()
    printed = visitor.run_command(code["command"], monkeypatch)
    if view == "choices":  # `classify` draws what it is for: classes
        scores = visitor.session.results[view]
        share = scores.recording_probability.max()
        assert f"{scores.ranking()[0]} {share:.3f} (mass {scores.mass[0]:.2g})" in printed
    else:
        assert (tmp_path / f"{view}.png").read_bytes() == files["png"]


def test_code_of_a_part_cuts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Visitor(tmp_path, "a.wav")
    visitor.session.open_clip.select_part([0.12345, 0.9])
    visitor.use("lens")
    code = visitor.code("lens")
    lines = code["python"].splitlines()
    visitor.run_python("\n".join(lines[:-1]), monkeypatch)  # without the picture
    assert (tmp_path / "lens.csv").read_bytes() == visitor.file("lens", "csv")
    assert code["command"] == ""
    assert "this is a part of one, which the Python lines cut" in code["note"]
    assert code["runs_in"] == "a folder that holds a.wav"
    visitor.session.clip = visitor.context.load({"example": "guitar.flac"})
    assert visitor.code("audio")["runs_in"] == (
        "a folder that holds guitar.flac (examples come with the package)"
    )


@pytest.mark.parametrize(
    "name",
    [
        *(
            "-",
            "-o",
            "@list.wav",
            "--",
            "~",
            "#1",
            "%s$(id)`id`.wav",
            "a b\t\r\x1b[1m\u202ec'd\\n.wav",
        ),
        *("é" * 127, "!!.wav", "[a]*?.wav", "{a,b}", "=cmd", "~root", "a\u2028b", "🎸.flac"),
    ],
)
def test_names_of_files_reach_the_shell_and_python(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(tmp_path, name)
    code = visitor.code("audio")
    assert all(line.isprintable() for text in code.values() if text for line in text.split("\n"))
    command, path, *_ = visitor.arguments(code["command"], monkeypatch)
    assert command == "plot"
    assert not path.startswith(("-", "@"))
    assert Path(path).samefile(tmp_path / name)
    [line] = [each for each in code["python"].splitlines() if each.startswith("clip = ")]
    found: dict[str, Any] = {"qa": qa}
    exec(line, found)
    np.testing.assert_array_equal(found["clip"].samples, visitor.waveform.samples)


@pytest.mark.slow
def test_code_of_a_conversation_asks_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    visitor = Visitor(tmp_path, ODD_NAME)
    visitor.use("ask", question="Is this music?", conversation=True, number=1)
    answer = visitor.use("ask", question="How loud is it?", conversation=True, number=2)["answer"]
    assert answer["turn"] == 2
    code = visitor.code("ask")
    assert "asks one question" in code["note"]
    visitor.run_python(code["python"], monkeypatch)
    assert capsys.readouterr().out.strip() == answer["text"]

    answer = visitor.use("ask", question="-Is it loud?", number=3)["answer"]
    code = visitor.code("ask")
    visitor.run_python(code["python"], monkeypatch)
    assert capsys.readouterr().out.strip() == answer["text"]
    printed = visitor.run_command(code["command"], monkeypatch)
    assert printed.strip().endswith(answer["text"])
    rows = list(csv.DictReader(io.StringIO(visitor.file("ask", "csv").decode())))
    assert [row["question"] for row in rows] == [
        "'-Is it loud?",
        "How loud is it?",
        "Is this music?",
    ]
    assert [row["prompt"] for row in rows] == ["plain prompt", "chat template", "chat template"]
    assert [row["turn"] for row in rows] == ["1", "2", "1"]
    assert {row["ended"] for row in rows} == {"complete"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
@pytest.mark.parametrize(
    "edit",
    [
        {
            "tap": "lm.2",
            "edit": "scale",
            "factor": 0.5,
            "span": "prompt",
            "question": "Is it loud?",
        },
        {"tap": "lm.2.heads", "edit": "scale_heads", "heads": [0, 1]},
    ],
)
def test_code_of_an_edit_makes_the_same_one(
    edit: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    visitor = Visitor(tmp_path, "a.wav")
    answer = visitor.use("edit", **edit)
    visitor.run_python(visitor.code("edit")["python"], monkeypatch)
    *texts, drop = capsys.readouterr().out.splitlines()
    assert texts == [answer["unedited"], answer["edited"]]
    before, after = (
        sum(token[name] for token in answer["tokens"])
        for name in ("log_probability", "log_probability_edited")
    )
    assert float(drop.strip("[]")) == pytest.approx(after - before, abs=1e-5)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> qa.Collection:
    """Windows of two recordings that are alike, with captions."""
    folder = tmp_path_factory.mktemp("collection")
    Visitor(folder, "it's_%.wav", "other.wav")
    made = qa.Collection.create(
        folder / "music.lance", qa.load(), tap="mel", window_seconds=0.5, describe=True
    )
    made.index(folder)
    return made


QUERIES: dict[str, dict[str, Any]] = {
    "caption": {"text": "loud"},
    "recording": {"include_self": True},
    "others": {},
    "row": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_code_of_searches_finds_the_same(
    query: str, collection: qa.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(collection.path.parent, "it's_%.wav", collection=collection)
    row = {"row": collection.rows().id(0)} if query == "row" else {}
    found = visitor.use("search", **QUERIES[query], **row)["results"]
    code, downloaded = visitor.code("search"), visitor.file("search", "csv")
    folder = str(collection.path.parent)
    assert folder not in str(code) + downloaded.decode()
    visitor.run_python(code["python"], monkeypatch)
    written = (collection.path.parent / "search.csv").read_bytes()
    assert written.replace(f"{folder}/".encode(), b"") == downloaded
    if query == "row":
        assert code["note"].startswith("There is no command: it would take the recording's path")
        return
    printed = visitor.run_command(code["command"], monkeypatch).splitlines()
    assert [line.split("  ")[1].strip() for line in printed] == [
        f"{each['score']:.3f}" for each in found
    ]
    assert {"it's_%.wav" in line for line in printed} == (
        {False} if query == "others" else {True, False}
    )


@pytest.mark.slow
def test_code_of_a_row_finds_it(collection: qa.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recording that is opened as a whole, and of a window of one that is too long."""
    visitor = Visitor(collection.path.parent, "a.wav", collection=collection)
    CollectionTab(visitor.context)
    row = {"row": collection.rows().id(1)}
    for limits in (Limits(), Limits(recording_seconds=0.7)):
        visitor.context.limits = limits
        visitor.session.open(visitor.context.load(row))
        assert visitor.waveform.duration_seconds == 0.5
        visitor.use("lens")
        lines = visitor.code("lens")["python"].splitlines()
        assert str(collection.path.parent) not in str(lines)
        visitor.run_python("\n".join(lines[:-1]), monkeypatch)  # without the picture
        assert (collection.path.parent / "lens.csv").read_bytes() == visitor.file("lens", "csv")


@pytest.mark.slow
def test_code_of_the_map_writes_the_same_points(
    collection: qa.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(collection.path.parent, "it's_%.wav", collection=collection)
    visitor.use("map")
    code, downloaded = visitor.code("map"), visitor.file("map", "csv")
    folder = str(collection.path.parent)
    assert folder not in str(code) + downloaded.decode()
    assert code["runs_in"] == "a folder that holds music.lance"
    visitor.run_python(code["python"], monkeypatch)
    written = (collection.path.parent / "map.csv").read_bytes()
    assert written.replace(f"{folder}/".encode(), b"") == downloaded
    assert b"x,y" in downloaded.splitlines()[0]
    page = (collection.path.parent / "map.html").read_bytes()
    (collection.path.parent / "map.html").unlink()
    visitor.run_command(code["command"], monkeypatch)
    assert (collection.path.parent / "map.html").read_bytes() == page


@pytest.mark.slow
def test_why_there_is_no_command(collection: qa.Collection, tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, "a.wav", "a.wav", collection)
    visitor.use("compare")
    assert "takes files of different names" in visitor.code("compare")["note"]
    visitor.session.open_clip.row = "0123456789abcdef-0"
    code = visitor.code("compare")
    assert "the recording's path, which this page doesn't show" in code["note"]
    assert "row = rows[rows.find('0123456789abcdef-0')]" in code["python"]
    assert code["runs_in"] == "a folder that holds a.wav and music.lance"


@pytest.mark.slow
def test_names_of_downloads(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, f"{'é' * 123}.wav")
    exports = Exports(visitor.context)
    answer = exports.file({"view": "hidden_states", "tap": "lm.2", "format": "csv"}, Page())
    assert answer["name"] == f"{'é' * 116}.hidden_states.lm.2.csv"
    assert len(answer["name"].encode()) <= 255
    visitor = Visitor(tmp_path, "a.b.wav")
    visitor.session.open_clip.select_part([0.25, 0.75])
    answer = Exports(visitor.context).file({"view": "audio", "format": "npz"}, Page())
    assert answer["name"] == "a.b.0.25-0.75s.audio.npz"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_vector_graphics_have_no_date_and_need_no_fonts(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, "a.wav")
    visitor.use("score", choices=["Yes", "No"])
    light = visitor.file("choices", "svg")
    assert visitor.file("choices", "svg") == light != visitor.file("choices", "svg", dark=True)
    assert b"<text" not in light
    assert b"date" not in light.lower()


@pytest.mark.parametrize("view", sorted(set(FORMATS) - {"audio", "hidden_states"}))
def test_views_that_show_nothing(view: str, tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, "a.wav")
    for answer in (
        Exports(visitor.context).file({"view": view, "format": "csv"}, Page()),
        Snippets(visitor.context).snippets({"view": view}, Page()),
    ):
        assert answer["problem"] == "This view shows nothing to export yet: use it first."


ODD_VALUES: list[Any] = [
    *(None, True, -1, 2**53, 1.5, "", "x", "mel", "map", "csv", "lm." + "9" * 5000, [], {"a": 1}),
]


def test_no_value_is_an_internal_error(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, "a.wav")
    names = ("view", "format", "tap", "dark")
    for handler in (Exports(visitor.context).file, Snippets(visitor.context).snippets):
        for value in ODD_VALUES:
            for data in (
                *({name: value, "n": value} for name in names),
                dict.fromkeys(names, value),
                {"view": "hidden_states", "format": "csv", "tap": value},
            ):
                answer = handler(data, Page())
                assert "internal error" not in answer.get("problem", ""), (handler, data)


@pytest.mark.slow
def test_models_and_adapters_are_named_without_their_paths(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "other", width=32, encoder_layers=1, lm_layers=1)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    adapter = write_adapter(tmp_path / "<tuned>", model)
    visitor = Visitor(tmp_path, "a.wav")
    context = AppContext(qa.load(folder, adapter=adapter), Limits())
    context.session(Page()).clip = visitor.session.clip
    code = Snippets(context).snippets({"view": "hidden_states", "tap": "mel"}, Page())
    assert code["command"].endswith("--model other --adapter '<tuned>'")
    assert "qa.load('other', adapter='<tuned>')" in code["python"]
    assert str(tmp_path) not in str(code)
    strange = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    folder.rename(strange)
    context = AppContext(qa.load(strange), Limits())
    assert context.model_name == "caf\\xe9"  # the page can't hold what UTF-8 can't


@pytest.mark.slow
def test_handlers_use_the_model_between_the_texts_of_a_server(
    tmp_path: Path, collection: qa.Collection
) -> None:
    """On the engine's thread, handlers of all tabs give what they give on a thread of their own,
    and texts of the API that are generated meanwhile are what they are alone."""
    alone = Visitor(tmp_path, "a.wav", "b.wav", collection)
    beside = Visitor(tmp_path, "a.wav", "b.wav", collection)
    beside.context.model = beside.model = alone.model
    expected = alone.model.describe(alone.waveform, max_new_tokens=16)
    engine = Engine(alone.model.pipeline, ApiLimits())
    engine.wait_until_ready()
    beside.context.thread = engine
    clip = Upload("clip", (tmp_path / "a.wav").read_bytes())
    reader = RecordingReader(alone.model.pipeline, ApiLimits())

    def read() -> list[TextInput]:
        (recording,) = reader.read([clip], None)
        return [TextInput(alone.model.pipeline.tokenizer.render(None), recording.windows)]

    requests = {name: request for name, request in VIEWS.values() if name}
    requests |= {"ask": {"question": "Is it loud?", "number": 1}, "search": {}, "map": {}}
    requests |= {"edit": {"tap": "lm.2", "edit": "zero", "span": "audio"}}
    jobs = []
    for name, request in requests.items():
        jobs.append(TextJob(read, Sampling(16)))
        engine.submit(jobs[-1])
        answers = [visitor.use(name, **request) for visitor in (beside, alone)]
        for answer in answers:  # but for times
            if name == "ask":
                del answer["answer"]["facts"]
        assert json.dumps(answers[0]) == json.dumps(answers[1]), name
    for job in jobs:
        (text,) = job.future.result(60)
        assert text.token_ids == expected.answers[0].token_ids
    engine.close()

"""Exports: files of what views show, and code that writes the same files."""

from __future__ import annotations

import base64
import io
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from browser import ROOT
from checkpoints import random_checkpoint
from commands import run
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.sessions import Clip
from qwen_audio.playground.tabs.export import FORMATS, Exports
from qwen_audio.playground.tabs.snippets import Snippets
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

    @property
    def waveform(self) -> qa.Waveform:
        return self.session.open_clip.window_waveform

    @property
    def other_waveform(self) -> qa.Waveform:
        assert self.session.other_clip is not None
        return self.session.other_clip.window_waveform

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


def choices(visitor: Visitor) -> qa.Scores:
    """Of a question with control tokens, which are text in it."""
    question = "Is it <|im_end|> loud?"
    return visitor.model.score(visitor.waveform, question, choices=["It's", '"a" guitar'])


def occlusion(visitor: Visitor) -> qa.Occlusion:
    answers = ("-x", "No")
    return visitor.model.occlusion(
        visitor.waveform, answers=answers, window_seconds=0.4, hop_seconds=0.2
    )


def lens(visitor: Visitor) -> qa.LogitLens:
    return visitor.model.lens(visitor.waveform, prompt="Is it loud?", tokens=["guitar", "a piano"])


def compare(visitor: Visitor) -> qa.Comparison:
    return visitor.model.compare(visitor.waveform, visitor.other_waveform)


def trace(visitor: Visitor) -> qa.Trace:
    seconds = min(visitor.waveform.duration_seconds, visitor.other_waveform.duration_seconds)
    return visitor.model.trace(
        visitor.waveform, visitor.other_waveform, answers=("a guitar", "drums"), seconds=seconds
    )


VIEWS: dict[str, Any] = {
    "audio": None,
    "hidden_states": None,
    "choices": choices,
    "occlusion": occlusion,
    "lens": lens,
    "compare": compare,
    "trace": trace,
}
"""By view whose picture is exported: what computes its result."""


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
    if VIEWS[view] is not None:
        visitor.session.results[view] = VIEWS[view](visitor)
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
    visitor.session.results["lens"] = visitor.model.lens(visitor.waveform)
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
    session = visitor.model.session(visitor.waveform)
    session.ask("Is this music?", chat=True)
    answer = session.ask("How loud is it?", chat=True, follow_up=True)
    turns = [("Is this music?", True), ("How loud is it?", True)]
    visitor.session.results["ask"] = turns, None
    code = visitor.code("ask")
    assert "asks one question" in code["note"]
    visitor.run_python(code["python"], monkeypatch)
    assert capsys.readouterr().out.strip() == answer

    visitor.session.results["ask"] = [("-Is it loud?", None)], None
    code = visitor.code("ask")
    answer = visitor.model.describe(visitor.waveform, prompt="-Is it loud?")
    visitor.run_python(code["python"], monkeypatch)
    assert capsys.readouterr().out.strip() == answer
    assert visitor.run_command(code["command"], monkeypatch).strip().endswith(answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tap", "edit", "span", "name"),
    [
        ("lm.2", qa.edits.scale(0.5), "prompt", "lm.2[prompt]: scale(factor=0.5)"),
        (
            "lm.2.heads",
            qa.edits.scale_heads([0, 1], 0.0),
            "audio",
            "lm.2.heads[audio]: scale_heads(heads=0+1, factor=0.0)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_code_of_an_edit_makes_the_same_one(
    tap: str,
    edit: Any,
    span: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    visitor = Visitor(tmp_path, "a.wav")
    model, clip = visitor.model, visitor.waveform
    answer = model.describe(clip, prompt="Is it loud?")
    scores = model.score(clip, "Is it loud?", choices=[answer], include_end=answer.complete)
    with model.edit(tap, edit, span=span):
        edited = model.describe(clip, prompt="Is it loud?")
        after = model.score(clip, "Is it loud?", choices=[answer], include_end=answer.complete)
    assert edited.edits == name
    effect = SimpleNamespace(edit=name, scores=(scores, after))
    visitor.session.results["edit"] = effect
    visitor.run_python(visitor.code("edit")["python"], monkeypatch)
    drop = after.log_probability - scores.log_probability
    assert capsys.readouterr().out == f"{answer}\n{edited}\n{drop}\n"


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
    "caption": {"text": "loud", "clip": None, "window": None},
    "recording": {"text": None, "clip": "it's_%.wav", "window": None, "include_self": True},
    "others": {"text": None, "clip": "it's_%.wav", "window": None, "include_self": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_code_of_searches_finds_the_same(
    query: str, collection: qa.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(collection.path.parent, "it's_%.wav", collection=collection)
    results = collection.search(
        None if query == "caption" else visitor.waveform,
        caption=QUERIES[query]["text"],
        where=f"source != '{collection.path.parent}/it''s_%.wav'" if query == "others" else None,
        limit=12,
    )
    visitor.session.results["search"], visitor.session.search_results = QUERIES[query], results
    code, downloaded = visitor.code("search"), visitor.file("search", "csv")
    folder = str(collection.path.parent)
    assert folder not in str(code) + downloaded.decode()
    visitor.run_python(code["python"], monkeypatch)
    written = (collection.path.parent / "search.csv").read_bytes()
    assert written.replace(f"{folder}/".encode(), b"") == downloaded
    printed = visitor.run_command(code["command"], monkeypatch).splitlines()
    assert [line.split("  ")[1].strip() for line in printed] == [f"{r.score:.3f}" for r in results]
    assert {"it's_%.wav" in line for line in printed} == (
        {False} if query == "others" else {True, False}
    )


@pytest.mark.slow
def test_code_of_the_map_writes_the_same_points(
    collection: qa.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(collection.path.parent, "it's_%.wav", collection=collection)
    visitor.session.results["map"] = collection.map(method="pca")
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
    visitor.session.results["compare"] = compare(visitor)
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
    visitor.session.results["choices"] = choices(visitor)
    light = visitor.file("choices", "svg")
    assert visitor.file("choices", "svg") == light != visitor.file("choices", "svg", dark=True)
    assert b"<text" not in light
    assert b"date" not in light.lower()


def test_tables_hold_no_formulas(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, "=a.wav")
    visitor.session.answers = [
        {"question": "=1+1", "answer": "@SUM(A1)"},
        {"question": "?", "answer": None},
    ]
    visitor.session.results["ask"] = [("=1+1", None)], None
    assert visitor.file("ask", "csv") == b"question,answer\r\n'=1+1,'@SUM(A1)\r\n"
    effect = SimpleNamespace(rows=lambda: [{"token": "-", "log_probability": -0.12345678}])
    visitor.session.results["edit"] = effect
    assert visitor.file("edit", "csv") == b"token,log_probability\r\n'-,-0.123457\r\n"


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

"""Exports: files of what views show, and code that writes the same files."""

from __future__ import annotations

import base64
import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browser import ROOT
from commands import run
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.sessions import Clip
from qwen_audio.playground.tabs.export import Exports
from qwen_audio.playground.tabs.snippets import Snippets
from recordings import write_wav

ODD_NAME = '-it\'s "my"\n$song* [1] {x} \\.wav'


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


class Visitor:
    """A visitor with recordings open, whose files are in a folder."""

    def __init__(self, folder: Path, name: str, other: str | None = None) -> None:
        self.folder, self.model = folder, qa.load()
        self.context = AppContext(self.model, Limits())
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

    def run_command(self, line: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """Run a line in a shell, where the command only writes down its arguments, then these."""
        monkeypatch.chdir(self.folder)
        shim = 'function qwen-audio { printf "%s\\0" "$@" > .arguments; }\n'
        subprocess.run(["bash", "-ec", shim + line], check=True, timeout=60)
        *arguments, _ = Path(".arguments").read_bytes().decode().split("\0")
        done = run(*arguments)
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

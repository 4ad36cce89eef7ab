"""Take away: what a view shows as a file, and the lines that make it elsewhere."""

from __future__ import annotations

import base64
import csv
import io
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_audio.audio import Window
from qwen_audio.drawing import picture
from qwen_audio.errors import OptionError
from qwen_audio.view import View

from .room import Room, spoken
from .seeing import frames_at
from .visits import Clip, Visit

__all__ = ["TakeAway"]

_TYPES = {"npz": "application/octet-stream", "csv": "text/csv", "png": "image/png"}
_NOTHING = "There is nothing to take away yet: let the page show something first."


class TakeAway:
    """Files and lines of every tab."""

    def __init__(self, room: Room) -> None:
        self.room = room

    @spoken
    def file(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """A view as a file's bytes: "view" and "format", and at See the "tap"."""
        visit = self.room.visit(request)
        view, suffix = str(asked.get("view")), str(asked.get("format"))
        if suffix not in _TYPES:
            raise OptionError(f"{suffix!r:.20} is no format: choose {', '.join(_TYPES)}.")
        thing, panels = self._thing(visit, view, str(asked.get("tap")))
        data = _saved(thing, panels, suffix, "dark" if asked.get("dark") else "light")
        stem = Path(visit.opened.name).stem
        tap = f".{asked['tap']}" if view == "see" else ""
        return {
            "name": f"{stem}.{view}{tap}.{suffix}",
            "type": _TYPES[suffix],
            "bytes": base64.b64encode(data).decode(),
        }

    @spoken
    def lines(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """The command and the Python lines that make what a view shows."""
        visit = self.room.visit(request)
        makers: dict[str, Callable[[Visit, str], tuple[str, list[str]]]] = {
            "hear": self._hear_lines,
            "ask": self._ask_lines,
            "see": self._see_lines,
            "words": self._words_lines,
            "compare": self._compare_lines,
            "find": self._find_lines,
        }
        view = str(asked.get("view"))
        if view not in makers:
            raise OptionError(_NOTHING)
        command, python = makers[view](visit, str(asked.get("tap")))
        return {"view": view, "command": command, "python": "\n".join(python)}

    def _thing(self, visit: Visit, view: str, tap: str) -> tuple[Any, list[str] | None]:
        clip = visit.opened
        if view in ("hear", "see"):
            tap = "mel" if view == "hear" else str(self.room.model.geometry.tap(tap))
            mel = frames_at(self.room, clip, "mel")
            made = View.of(
                frames_at(self.room, clip, tap),
                clip.name,
                waveform=clip.part,
                log_mel=mel,
                mel_hz=self.room.model.mel_hz,
            )
            return made, ["waveform", "mel"] if view == "hear" else None
        kept = {"words": "lens"}.get(view, view)
        if kept not in visit.kept:
            raise OptionError(_NOTHING)
        if view == "ask":
            return [
                {"question": entry["question"], "answer": str(entry["said"])}
                for entry in visit.answers
                if entry["said"] is not None
            ], None
        if view == "find":
            return [
                {
                    "file": Path(hit.source).name,
                    "start_seconds": hit.window.start_seconds,
                    "end_seconds": hit.window.end_seconds,
                    "score": hit.score,
                    "caption": hit.caption or "",
                }
                for hit in visit.found
            ], None
        return visit.kept[kept], None

    def _opening(self, clip: Clip) -> list[str]:
        """Lines that load the model and what is looked at."""
        lines = ["import qwen_audio as qa", "", f"model = {self._load()}"]
        lines.append(f"clip = qa.load_waveform({clip.name!r})")
        return [*lines, *_cut(clip)]

    def _load(self) -> str:
        name = self.room.model.name
        return "qa.load()" if name == "embedded" else f"qa.load({name!r})"

    def _model(self) -> str:
        name = self.room.model.name
        return "" if name == "embedded" else f" --model {shlex.quote(name)}"

    def _hear_lines(self, visit: Visit, _: str) -> tuple[str, list[str]]:
        clip = visit.opened
        return f"qwen-audio inspect {shlex.quote(clip.name)}{self._model()}", [
            *self._opening(clip),
            'view = model.view(clip, tap="mel")',
            'qa.draw(view, "heard.png", ["waveform", "mel"])',
        ]

    def _ask_lines(self, visit: Visit, _: str) -> tuple[str, list[str]]:
        clip, asked = visit.opened, visit.kept.get("ask")
        if asked is None:
            raise OptionError(_NOTHING)
        question = asked["question"]
        prompt = f" --prompt {shlex.quote(question)}" if question else ""
        command = f"qwen-audio describe {shlex.quote(clip.name)}{prompt}{self._model()}"
        options = repr(question) if question else ""
        if asked["chat"] is not None:
            options += f"{', ' if options else ''}chat={asked['chat']}"
            command = ""  # the command asks as the model was taught
        if asked["follow_up"]:
            command = ""
        lines = ["import qwen_audio as qa", "", f"model = {self._load()}"]
        lines.append(f"clip = qa.load_waveform({clip.name!r})")
        if asked["window"] is not None:
            lines += _cut(clip)
            command = ""
        lines += ["heard = model.listen(clip)", f"print(heard.ask({options}))"]
        return command, lines

    def _see_lines(self, visit: Visit, tap: str) -> tuple[str, list[str]]:
        clip = visit.opened
        tap = str(self.room.model.geometry.tap(tap))
        name = shlex.quote(clip.name)
        command = f"qwen-audio encode {name} --tap {tap} --pooling none -o rows.npz{self._model()}"
        return command, [
            *self._opening(clip),
            f'frames = model.activations(clip, taps=["{tap}"])["{tap}"]',
            "view = qa.View.of(frames)",
            'view.save("view.npz")',
            'qa.draw(view, "view.png")',
        ]

    def _words_lines(self, visit: Visit, _: str) -> tuple[str, list[str]]:
        return "", [
            *self._opening(visit.opened),
            "lens = model.lens(clip)",
            'lens.save("lens.csv")',
            'qa.draw(lens, "lens.png")',
        ]

    def _compare_lines(self, visit: Visit, _: str) -> tuple[str, list[str]]:
        if visit.other is None:
            raise OptionError(_NOTHING)
        return "", [
            *self._opening(visit.opened),
            f"other = qa.load_waveform({visit.other.name!r})",
            *(line.replace("clip", "other") for line in _cut(visit.other)),
            "one, two = model.activations([clip, other], taps=model.taps)",
            "compared = qa.Comparison.of((one[tap], two[tap]) for tap in one)",
            'compared.save("compared.csv")',
        ]

    def _find_lines(self, visit: Visit, _: str) -> tuple[str, list[str]]:
        collection, words = self.room.collection, visit.kept.get("find")
        if collection is None or words is None:
            raise OptionError(_NOTHING)
        place = collection.path.name
        by_words = not (visit.clip and words == visit.clip.name)
        flag, option = ("--text", f"text={words!r}") if by_words else ("--audio", repr(words))
        return f"qwen-audio search {shlex.quote(place)} {flag} {shlex.quote(words)}", [
            "import qwen_audio as qa",
            "",
            f"music = qa.Collection.open({place!r})",
            f"for hit in music.search({option}):",
            "    print(hit)",
        ]


def _cut(clip: Clip) -> list[str]:
    if len(clip.windows) == 1:
        return []
    window: Window = clip.seen
    span = f"{window.start_seconds}, {window.end_seconds}"
    return [f"clip = qa.Waveform(clip.cut(qa.Window({span})), clip.name)"]


def _saved(thing: Any, panels: list[str] | None, suffix: str, theme: Any) -> bytes:
    """As `save` and `picture` make it; what has to lie on disk for that is gone afterwards."""
    if isinstance(thing, list):
        if suffix != "csv" or not thing:
            raise OptionError("This view is a table: take it as CSV." if thing else _NOTHING)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(thing[0]))
        writer.writeheader()
        writer.writerows(thing)
        return text.getvalue().encode()
    if suffix == "png":
        opened = io.BytesIO()
        picture(thing, panels, theme=theme).savefig(opened, format="png")
        return opened.getvalue()
    with tempfile.TemporaryDirectory(prefix="qwen-audio-") as folder:
        target = Path(folder) / f"view.{suffix}"
        thing.save(target)
        return target.read_bytes()

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

from qwen_audio import OptionError, Projection, View, Window, plot
from qwen_audio.playground.context import AppContext, spoken
from qwen_audio.playground.sessions import Clip, Session

from .find import HITS
from .see import frames_at

__all__ = ["Downloads"]

_TYPES = {"npz": "application/octet-stream", "csv": "text/csv", "png": "image/png"}
_NOTHING = "There is nothing to take away yet: let the page show something first."


class Downloads:
    """Files and lines of every tab."""

    def __init__(self, room: AppContext) -> None:
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
        collection, clip = self.room.collection, visit.clip
        about = collection.path if view in ("find", "map") and collection else None
        stem = (about or Path(clip.name if clip else "recording")).stem
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
        makers: dict[str, Callable[[Session, str], tuple[str, list[str]]]] = {
            "hear": self._hear_lines,
            "ask": self._ask_lines,
            "see": self._see_lines,
            "words": self._words_lines,
            "compare": self._compare_lines,
            "find": self._find_lines,
            "map": self._map_lines,
        }
        view = str(asked.get("view"))
        if view not in makers:
            raise OptionError(_NOTHING)
        command, python = makers[view](visit, str(asked.get("tap")))
        return {"view": view, "command": command, "python": "\n".join(python)}

    def _thing(self, visit: Session, view: str, tap: str) -> tuple[Any, list[str] | None]:
        if view in ("hear", "see"):
            clip = visit.opened
            tap = "mel" if view == "hear" else str(self.room.model.dimensions.tap(tap))
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
        if view == "map":
            return _map_table(visit.kept["map"]), None
        return visit.kept[kept], None

    def _opening(self, clip: Clip) -> list[str]:
        """Lines that load the model and what is looked at."""
        lines = ["import qwen_audio as qa", "", f"model = {self._load()}"]
        lines.append(f"clip = qa.load_waveform({clip.name!r})")
        return [*lines, *_cut(clip.several)]

    def _load(self) -> str:
        name = self.room.model_name
        return "qa.load()" if name == "embedded" else f"qa.load({name!r})"

    def _model(self) -> str:
        name = self.room.model_name
        return "" if name == "embedded" else f" --model {shlex.quote(name)}"

    def _command(self, clip: Clip, verb: str, options: str) -> str:
        """None for one of several windows: commands hear all of a recording."""
        if len(clip.windows) > 1:
            return ""
        return f"qwen-audio {verb} {shlex.quote(clip.name)} {options}{self._model()}"

    def _hear_lines(self, visit: Session, _: str) -> tuple[str, list[str]]:
        clip = visit.opened
        options = "--tap mel --panels waveform,mel -o heard.png"
        return self._command(clip, "plot", options), [
            *self._opening(clip),
            'view = model.view(clip, tap="mel")',
            'view.save("heard.npz")',
            'qa.save_plot(view, "heard.png", ["waveform", "mel"])',
        ]

    def _ask_lines(self, visit: Session, _: str) -> tuple[str, list[str]]:
        clip, asked = visit.opened, visit.kept.get("ask")
        if asked is None:
            raise OptionError(_NOTHING)
        turns, window = asked
        lines = ["import qwen_audio as qa", "", f"model = {self._load()}"]
        lines += [f"clip = qa.load_waveform({clip.name!r})", *_cut(window)]
        lines.append("heard = model.session(clip)")
        for number, (question, chat) in enumerate(turns):
            options = [repr(question)] if question else []
            options += [] if chat is None else [f"chat={chat}"]
            options += ["follow_up=True"] if number else []
            lines.append(f"heard.ask({', '.join(options)})")
        lines[-1] = f"print({lines[-1]})"
        question, chat = turns[-1]
        # The command hears all of a recording, asks as the model was taught, and asks once.
        if len(turns) > 1 or window is not None or chat is not None:
            return "", lines
        prompt = f" --prompt {shlex.quote(question)}" if question else ""
        return f"qwen-audio describe {shlex.quote(clip.name)}{prompt}{self._model()}", lines

    def _see_lines(self, visit: Session, tap: str) -> tuple[str, list[str]]:
        clip = visit.opened
        tap = str(self.room.model.dimensions.tap(tap))
        return self._command(clip, "plot", f"--tap {tap} -o view.png"), [
            *self._opening(clip),
            f'view = model.view(clip, tap="{tap}")',
            'view.save("view.npz")',
            'qa.save_plot(view, "view.png")',
            f'rows = model.encode(clip, tap="{tap}", pooling="none")  # of every frame',
        ]

    def _words_lines(self, visit: Session, _: str) -> tuple[str, list[str]]:
        clip = visit.opened
        return self._command(clip, "lens", "-o lens.csv"), [
            *self._opening(clip),
            "lens = model.lens(clip)",
            'lens.save("lens.csv")',
            'qa.save_plot(lens, "lens.png")',
        ]

    def _compare_lines(self, visit: Session, _: str) -> tuple[str, list[str]]:
        if visit.other is None:
            raise OptionError(_NOTHING)
        return "", [
            *self._opening(visit.opened),
            f"other = qa.load_waveform({visit.other.name!r})",
            *_cut(visit.other.several, "other"),
            "one, two = model.activations([clip, other], taps=model.taps)",
            "compared = qa.Comparison.of((one[tap], two[tap]) for tap in one)",
            'compared.save("compared.csv")',
            'qa.save_plot(compared, "compared.png")',
        ]

    def _find_lines(self, visit: Session, _: str) -> tuple[str, list[str]]:
        collection, asked = self.room.collection, visit.kept.get("find")
        if collection is None or asked is None:
            raise OptionError(_NOTHING)
        place, words, clip = collection.path.name, asked["words"], asked["clip"]
        lines = ["import qwen_audio as qa", "", f"music = qa.Collection.open({place!r})"]
        flag, query = f"--text {shlex.quote(words or '')}", f"text={words!r}"
        if words is None:
            flag, query = f"--audio {shlex.quote(clip)}", "clip"
            lines += [f"clip = qa.load_waveform({clip!r})", *_cut(asked["window"])]
        lines += [f"for hit in music.search({query}, limit={HITS}):", "    print(hit)"]
        command = f"qwen-audio search {shlex.quote(place)} {flag} --limit {HITS}"
        return "" if asked["window"] and words is None else command, lines

    def _map_lines(self, visit: Session, _: str) -> tuple[str, list[str]]:
        collection = self.room.collection
        if collection is None or "map" not in visit.kept:
            raise OptionError(_NOTHING)
        place = collection.path.name
        return f"qwen-audio map {shlex.quote(place)} -o map.html", [
            "import qwen_audio as qa",
            "",
            f"laid_out = qa.Collection.open({place!r}).map()",
            'laid_out.write_html("map.html")',
            "for (x, y), row in zip(laid_out.points, laid_out.rows):",
            '    print(x, y, row["source"], row["window"])',
        ]


def _cut(window: Window | None, name: str = "clip") -> list[str]:
    """Nothing for what is heard whole."""
    if window is None:
        return []
    span = f"{window.start_seconds}, {window.end_seconds}"
    return [f"{name} = qa.Waveform({name}.samples_in(qa.Window({span})), {name}.name)"]


def _map_table(made: Projection) -> list[dict[str, Any]]:
    """A row a point. Where its file lies stays here."""
    columns = {name: made.values(name) for name in made.columns if name != "recording"}
    return [
        {
            "file": Path(row["source"]).name,
            "start_seconds": row["start_seconds"],
            "end_seconds": row["end_seconds"],
            "x": float(x),
            "y": float(y),
            **{name: values[number] for name, values in columns.items()},
        }
        for number, ((x, y), row) in enumerate(zip(made.points, made.rows, strict=True))
    ]


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
        plot(thing, panels, theme=theme).savefig(opened, format="png")
        return opened.getvalue()
    with tempfile.TemporaryDirectory(prefix="qwen-audio-") as folder:
        target = Path(folder) / f"view.{suffix}"
        thing.save(target)
        return target.read_bytes()

"""Code snippets: the command and the Python code that reproduce what a tab shows."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from qwen_audio import OptionError, Window
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.sessions import Clip, Session

from .search import RESULT_LIMIT

__all__ = ["NOTHING_SHOWN", "Snippets"]

NOTHING_SHOWN = "This view shows nothing to download yet: use it first."


class Snippets:
    """Request handler of all tabs' code snippets."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def snippets(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The command ("" if none does the same) and Python code of a "view"."""
        session = self.context.session(request)
        writers: dict[str, Callable[[Session, str], tuple[str, list[str]]]] = {
            "audio": self._audio,
            "ask": self._ask,
            "hidden_states": self._hidden_states,
            "lens": self._lens,
            "compare": self._compare,
            "search": self._search,
            "map": self._map,
        }
        view = str(data.get("view"))
        if view not in writers:
            raise OptionError(f"view {view!r:.20}: choose {', '.join(writers)}.")
        command, python = writers[view](session, str(data.get("tap")))
        return {"view": view, "command": command, "python": "\n".join(python)}

    def _load_clip(self, clip: Clip) -> list[str]:
        """Python lines that load the model and the selected window."""
        return [
            "import qwen_audio as qa",
            "",
            f"model = {self._load_model()}",
            f"clip = qa.load_waveform({clip.name!r})",
            *_cut(clip.window_of_many),
        ]

    def _load_model(self) -> str:
        name, adapter = self.context.model_name, self.context.adapter_name
        arguments = [] if name == "embedded" else [repr(name)]
        arguments += [] if adapter is None else [f"adapter={adapter!r}"]
        quantize = self.context.model.quantize
        arguments += [] if quantize is None else [f"quantize={quantize!r}"]
        return f"qa.load({', '.join(arguments)})"

    def _model_option(self) -> str:
        name, adapter = self.context.model_name, self.context.adapter_name
        model = "" if name == "embedded" else f" --model {shlex.quote(name)}"
        model = model if adapter is None else f"{model} --adapter {shlex.quote(adapter)}"
        quantize = self.context.model.quantize
        return model if quantize is None else f"{model} --quantize {quantize}"

    def _command(self, clip: Clip, name: str, options: str) -> str:
        """Empty for one of several windows: commands process whole recordings."""
        if len(clip.windows) > 1:
            return ""
        return f"qwen-audio {name} {shlex.quote(clip.name)} {options}{self._model_option()}"

    def _audio(self, session: Session, _: str) -> tuple[str, list[str]]:
        clip = session.open_clip
        options = "--tap mel --panel waveform --panel mel -o audio.png"
        return self._command(clip, "plot", options), [
            *self._load_clip(clip),
            'view = model.view(clip, tap="mel")',
            'view.save("audio.npz")',
            'qa.save_plot(view, "audio.png", ["waveform", "mel"])',
        ]

    def _ask(self, session: Session, _: str) -> tuple[str, list[str]]:
        clip, result = session.open_clip, session.results.get("ask")
        if result is None:
            raise OptionError(NOTHING_SHOWN)
        turns, window = result
        lines = ["import qwen_audio as qa", "", f"model = {self._load_model()}"]
        lines += [f"clip = qa.load_waveform({clip.name!r})", *_cut(window)]
        lines.append("session = model.session(clip)")
        for index, (question, chat) in enumerate(turns):
            options = [repr(question)] if question else []
            options += [] if chat is None else [f"chat={chat}"]
            options += ["follow_up=True"] if index else []
            lines.append(f"session.ask({', '.join(options)})")
        lines[-1] = f"print({lines[-1]})"
        question, chat = turns[-1]
        # The command takes whole recordings, the default prompt style and one question.
        if len(turns) > 1 or window is not None or chat is not None:
            return "", lines
        prompt = f" --prompt {shlex.quote(question)}" if question else ""
        return f"qwen-audio describe {shlex.quote(clip.name)}{prompt}{self._model_option()}", lines

    def _hidden_states(self, session: Session, tap: str) -> tuple[str, list[str]]:
        clip = session.open_clip
        tap = str(self.context.model.dimensions.tap(tap))
        return self._command(clip, "plot", f"--tap {tap} -o view.png"), [
            *self._load_clip(clip),
            f'view = model.view(clip, tap="{tap}")',
            'view.save("view.npz")',
            'qa.save_plot(view, "view.png")',
            f'rows = model.encode(clip, tap="{tap}", pooling="none")  # one per frame',
        ]

    def _lens(self, session: Session, _: str) -> tuple[str, list[str]]:
        clip = session.open_clip
        return self._command(clip, "lens", "-o lens.csv"), [
            *self._load_clip(clip),
            "lens = model.lens(clip)",
            'lens.save("lens.csv")',
            'qa.save_plot(lens, "lens.png")',
        ]

    def _compare(self, session: Session, _: str) -> tuple[str, list[str]]:
        if session.other_clip is None:
            raise OptionError(NOTHING_SHOWN)
        return "", [
            *self._load_clip(session.open_clip),
            f"other = qa.load_waveform({session.other_clip.name!r})",
            *_cut(session.other_clip.window_of_many, "other"),
            "first, second = model.activations([clip, other], taps=model.taps)",
            "comparison = qa.Comparison.of((first[tap], second[tap]) for tap in first)",
            'comparison.save("comparison.csv")',
            'qa.save_plot(comparison, "comparison.png")',
        ]

    def _search(self, session: Session, _: str) -> tuple[str, list[str]]:
        collection, query = self.context.collection, session.results.get("search")
        if collection is None or query is None:
            raise OptionError(NOTHING_SHOWN)
        path, text, clip = collection.name, query["text"], query["clip"]
        lines = ["import qwen_audio as qa", "", f"collection = qa.Collection.open({path!r})"]
        option, argument = f"--caption {shlex.quote(text or '')}", f"caption={text!r}"
        if text is None:
            option, argument = f"{shlex.quote(clip)} --include-self", "clip"
            lines += [f"clip = qa.load_waveform({clip!r})", *_cut(query["window"])]
        lines += [
            f"for result in collection.search({argument}, limit={RESULT_LIMIT}):",
            "    print(result)",
        ]
        command = f"qwen-audio search {shlex.quote(path)} {option} --limit {RESULT_LIMIT}"
        return "" if query["window"] and text is None else command, lines

    def _map(self, session: Session, _: str) -> tuple[str, list[str]]:
        collection = self.context.collection
        if collection is None or "map" not in session.results:
            raise OptionError(NOTHING_SHOWN)
        path = collection.name
        return f"qwen-audio map {shlex.quote(path)} -o map.html", [
            "import qwen_audio as qa",
            "",
            f"projection = qa.Collection.open({path!r}).map()",
            'projection.write_html("map.html")',
            "for (x, y), row in zip(projection.points, projection.rows):",
            '    print(x, y, row["source"], row["window"])',
        ]


def _cut(window: Window | None, name: str = "clip") -> list[str]:
    """The Python line that cuts a waveform to a window; none for a whole recording."""
    if window is None:
        return []
    span = f"{window.start_seconds}, {window.end_seconds}"
    return [f"{name} = qa.Waveform({name}.samples_in(qa.Window({span})), {name}.name)"]

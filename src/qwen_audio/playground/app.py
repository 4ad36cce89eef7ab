"""The page: its tabs, and which handler answers what."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from qwen_audio.playground.tabs.ask import CHAT, PLAIN, WHOLE, WINDOW, Asking
from qwen_audio.playground.tabs.compare import Comparing
from qwen_audio.playground.tabs.download import Downloads
from qwen_audio.playground.tabs.find import Finding
from qwen_audio.playground.tabs.hear import Hearing
from qwen_audio.playground.tabs.see import Seeing

from .context import AppContext
from .examples import examples

__all__ = ["build", "look"]

_FOLDER = Path(__file__).parent / "static"
_SCRIPTS = ("core.js", "hear.js", "ask.js", "see.js", "compare.js", "map.js", "find.js", "away.js")
_CHANNELS = ("open", "see", "measure", "words", "compare", "find", "map", "hear", "file", "lines")
_QUESTIONS = (
    "Describe the music:",
    "Which instrument leads?",
    "Are there drums?",
    "Is anyone speaking?",
    "How loud is it?",
)
_FOLLOW_UP = "In Chat: the answers before stay in the conversation."
_NEEDED = (
    '<p class="pg-needed">No recording is open yet. '
    '<button type="button" class="pg-link" data-to-hear>Choose one under Hear</button></p>'
)
"""Where a recording is needed, until there is one."""
_MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
"""Of requests that use the model: one at a time, in order."""
_QUICK = {"concurrency_id": "quick", "concurrency_limit": 8}
"""Of requests that mostly show what has been computed already."""
_MAP = {"concurrency_id": "map", "concurrency_limit": 1}
"""Laid out for the first who looks; the others find it made."""
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def look() -> dict[str, Any]:
    """What `Blocks.launch` takes of colours, letters and scripts: all local."""
    scripts = "\n".join(_read(name) for name in _SCRIPTS)
    return {
        "theme": gr.themes.Base(
            primary_hue="indigo",
            neutral_hue="slate",
            radius_size="md",
            font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
            font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
        ),
        "css": _read("style.css"),
        "head": f"<script>{scripts}</script>",
    }


def build(room: AppContext) -> gr.Blocks:
    """All of the page, with its requests wired to their handlers."""
    with gr.Blocks(title="Qwen Audio Playground", analytics_enabled=False) as page:
        gr.HTML(_header(room))
        # Outside of the tabs, which come into being when they are first looked at.
        channels = {name: _channel(name) for name in _CHANNELS}
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Hear", id="hear"):
                hear = _hear(room, channels)
                _away("hear", "npz", "csv", "png")
            with gr.Tab("Ask", id="ask"):
                _ask(room, hear)
                _away("ask", "csv")
            with gr.Tab("See", id="see"):
                _see(room, channels)
                _away("see", "npz", "csv", "png")
                _away("words", "npz", "csv", "png")
            with gr.Tab("Compare", id="compare"):
                _compare(room, channels)
                _away("compare", "npz", "csv", "png")
            if room.collection is not None:
                with gr.Tab("Find", id="find"):
                    _find(room, channels)
                    _away("find", "csv")
                    _away("map", "csv")
        _take_away(room, channels)
        _drawn("player.html", "playground.player.mount(element)")
        page.unload(_left(room))
    return page


def _hear(room: AppContext, channels: dict[str, Any]) -> Any:
    view = _drawn(
        "hear.html",
        "playground.hear(element, props, watch)",
        LONGEST=room.limits.longest,
        LARGEST=room.limits.largest,
        EXAMPLES=_example_chips(),
    )
    channel = channels["open"]
    channel.submit(_asked(Hearing(room).open), channel, view, **_QUIET, **_MODEL)
    return view


def _ask(room: AppContext, hear: Any) -> None:
    asking = Asking(room)
    gr.HTML(_NEEDED)
    with gr.Column(elem_classes=["pg-card", "pg-form"]):
        question = gr.Textbox(
            _QUESTIONS[0],
            label="Question",
            max_lines=3,
            max_length=1000,
            elem_id="question",
        )
        _drawn(
            "",
            "playground.ask(element)",
            "".join(
                f'<button type="button" class="pg-chip">{escape(text)}</button>'
                for text in _QUESTIONS
            ),
            "pg-examples",
        )
        with gr.Row(equal_height=True):
            style = gr.Radio([PLAIN, CHAT], value=asking.usual_style, label="Prompt")
            part = gr.Radio([WINDOW, WHOLE], value=WHOLE, label="Heard", elem_id="heard")
            follow_up = gr.Checkbox(value=False, label="Follow up", info=_FOLLOW_UP)
        button = gr.Button("Ask", variant="primary", elem_id="ask")
    gr.HTML('<p class="pg-status" id="ask-status" role="status"></p>')
    answers = gr.HTML(elem_id="answers")

    def ask(question: str, style: str, follow_up: bool, part: str, request: gr.Request) -> Any:
        yield from asking.ask(question, style, follow_up, part, request)

    gr.on(
        [button.click, question.submit],
        ask,
        [question, style, follow_up, part],
        answers,
        trigger_mode="once",
        **_QUIET,
        **_MODEL,
    ).then(None, js="() => playground.answered()", **_QUIET)
    hear.change(_asked_plain(asking.clear), None, answers, **_QUIET, **_QUICK)


def _see(room: AppContext, channels: dict[str, Any]) -> None:
    seeing = Seeing(room)
    taps = [str(tap) for tap in room.model.taps]
    view = _drawn(
        "see.html",
        f"playground.see(element, props, watch, {json.dumps(taps)})",
        MAX=str(len(taps) - 1),
        NEEDED=_NEEDED,
    )
    timing, words = _heard_by("playground.measured"), _heard_by("playground.lens")
    see, measure, ask = (channels[name] for name in ("see", "measure", "words"))
    # A slider in motion: of what is asked meanwhile only the last is answered.
    see.submit(_asked(seeing.see), see, view, trigger_mode="always_last", **_QUIET, **_QUICK)
    measure.submit(
        _asked(seeing.measure), measure, timing, trigger_mode="always_last", **_QUIET, **_MODEL
    )
    ask.submit(_asked(seeing.words), ask, words, trigger_mode="always_last", **_QUIET, **_MODEL)


def _compare(room: AppContext, channels: dict[str, Any]) -> None:
    view = _drawn(
        "compare.html",
        "playground.compare(element, props, watch)",
        EXAMPLES=_example_chips(),
        NEEDED=_NEEDED,
    )
    channel = channels["compare"]
    channel.submit(_asked(Comparing(room).compare), channel, view, **_QUIET, **_QUICK)


def _find(room: AppContext, channels: dict[str, Any]) -> None:
    finding = Finding(room)
    collection = finding.collection
    windows = f"{len(collection)} window{'s' * (len(collection) != 1)}"
    about = f"{escape(collection.path.name)}: {windows}, compared at {collection.spec.tap}."
    script = "playground.find(element, props, watch)"
    view = _drawn("find.html", script, COLLECTION=about, NEEDED=_NEEDED)
    heard = _heard_by("playground.found")
    channel = channels["find"]
    channel.submit(_asked(finding.find), channel, view, **_QUIET, **_MODEL)
    channel = channels["map"]
    channel.submit(_asked(finding.map), channel, _heard_by("playground.mapped"), **_QUIET, **_MAP)
    channel = channels["hear"]
    channel.submit(_asked(finding.hear), channel, heard, **_QUIET, **_QUICK)


def _take_away(room: AppContext, channels: dict[str, Any]) -> None:
    away = Downloads(room)
    for name, handler in (("file", away.file), ("lines", away.lines)):
        shown = _heard_by(f"playground.show{name.title()}")
        channels[name].submit(_asked(handler), channels[name], shown, **_QUIET, **_QUICK)


def _away(view: str, *formats: str) -> None:
    _drawn("", f"playground.away(element, '{view}', {list(formats)})", " ")


def _heard_by(function: str) -> Any:
    """An answer that a script is handed, and that is not drawn where it stands."""
    return _drawn("", f"watch('value', () => {function}(props.value))", " ")


def _example_chips() -> str:
    return "".join(
        f'<button type="button" class="pg-chip" data-example="{name}">{title}</button>'
        for name, title in examples().items()
    )


def _asked(handler: Any) -> Any:
    """With the annotation by which Gradio knows where to put the request."""

    def answer(asked: Any, request: gr.Request) -> Any:
        return handler(asked, request)

    return answer


def _left(room: AppContext) -> Any:
    def forget(request: gr.Request) -> None:
        room.visits.forget(request.session_hash)

    return forget


def _asked_plain(handler: Any) -> Any:
    def answer(request: gr.Request) -> Any:
        return handler(request)

    return answer


def _channel(name: str) -> Any:
    """What the page's scripts call Python with."""
    return gr.HTML(
        {},
        html_template="",
        js_on_load=f"playground.connect('{name}', trigger, props)",
        visible="hidden",
    )


def _drawn(file: str, script: str, html: str = "", classes: str = "", **words: str) -> Any:
    """A part of the page that a script draws."""
    html = html or _read(file)
    for name, text in words.items():
        html = html.replace(name, text)
    return gr.HTML(
        None,
        html_template=html,
        js_on_load=script,
        apply_default_css=False,
        elem_classes=classes or None,
    )


def _header(room: AppContext) -> str:
    name, limits = room.model_name, room.limits
    name = "the small embedded checkpoint" if name == "embedded" else name
    return (
        f'<header class="pg-header" data-most="{limits.upload_bytes}" '
        f'data-largest="{limits.largest}">'
        f"<h1>Qwen Audio Playground</h1><p>Hear, ask and see with <b>{escape(name)}</b></p>"
        '<p class="pg-opened" data-opened aria-live="polite"></p></header>'
    )


@cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")

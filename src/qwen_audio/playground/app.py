"""The Gradio page: tabs, and which handler answers which request."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from qwen_audio.analysis.html_text import script_json
from qwen_audio.errors import counted
from qwen_audio.playground.tabs.ask import CHAT, PLAIN, WHOLE, WINDOW, AskTab
from qwen_audio.playground.tabs.audio import AudioTab
from qwen_audio.playground.tabs.compare import CompareTab
from qwen_audio.playground.tabs.download import Downloads
from qwen_audio.playground.tabs.hidden_states import HiddenStatesTab
from qwen_audio.playground.tabs.search import SearchTab
from qwen_audio.playground.tabs.snippets import Snippets

from .context import AppContext
from .examples import example_titles

__all__ = ["build_page", "theme_options"]

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("core", "audio", "ask", "hidden_states", "compare", "map", "search", "download")
_CHANNELS = (
    *("open", "hidden_states", "time_tap", "lens", "compare"),
    *("search", "map", "play", "file", "snippets"),
)
_QUESTIONS = (
    "Describe the music:",
    "Which instrument leads?",
    "Are there drums?",
    "Is anyone speaking?",
    "How loud is it?",
)
_FOLLOW_UP = "With the chat prompt: earlier questions and answers stay in the conversation."
_NO_RECORDING = (
    '<p class="pg-no-recording">No recording is open yet. '
    '<button type="button" class="pg-link" data-to-audio>Choose one in the Audio tab</button></p>'
)
"""Shown in tabs that need a recording, until one is open."""
_ON_MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
"""For handlers that use the model: one at a time, in order."""
_CONCURRENT = {"concurrency_id": "concurrent", "concurrency_limit": 8}
"""For handlers that mostly return cached results."""
_DECODING = {"concurrency_id": "decoding", "concurrency_limit": 24}
"""For handlers that decode a recording, which may take seconds, before they use the model."""
_ON_MAP = {"concurrency_id": "map", "concurrency_limit": 1}
"""For the map: the first request computes it, later ones find it cached."""
_PRIVATE = {"show_progress": "hidden", "api_visibility": "private"}


def theme_options() -> dict[str, Any]:
    """Keyword arguments of `Blocks.launch`: theme, CSS and scripts, all served locally."""
    scripts = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
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


def build_page(context: AppContext) -> gr.Blocks:
    """The page, with its requests wired to their handlers."""
    with gr.Blocks(title="Qwen Audio Playground", analytics_enabled=False) as page:
        gr.HTML(_header(context))
        # Outside the tabs, whose components exist only once the tab has been selected.
        channels = {name: _channel(name) for name in _CHANNELS}
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Audio", id="audio"):
                clip = _audio_tab(context, channels)
                _downloads("audio", "npz", "csv", "png")
            with gr.Tab("Ask", id="ask"):
                _ask_tab(context, clip)
                _downloads("ask", "csv")
            with gr.Tab("Hidden states", id="hidden_states"):
                _hidden_states_tab(context, channels)
                _downloads("hidden_states", "npz", "csv", "png")
                _downloads("lens", "npz", "csv", "png")
            with gr.Tab("Compare", id="compare"):
                _compare_tab(context, channels)
                _downloads("compare", "npz", "csv", "png")
            if context.collection is not None:
                with gr.Tab("Search", id="search"):
                    _search_tab(context, channels)
                    _downloads("search", "csv")
                    _downloads("map", "csv")
        _connect(channels, "file", Downloads(context).file, "playground.saveFile")
        _connect(channels, "snippets", Snippets(context).snippets, "playground.showSnippets")
        _component("player.html", "playground.player.mount(element)")
        page.unload(_remove_session(context))
    return page


def _audio_tab(context: AppContext, channels: dict[str, Any]) -> Any:
    view = _component(
        "audio.html",
        "playground.audioTab(element, props, watch)",
        MAX_SECONDS=context.limits.recording_text,
        MAX_BYTES=context.limits.upload_text,
        EXAMPLES=_example_chips(),
    )
    handler = _with_request(AudioTab(context).open)
    channels["open"].submit(handler, channels["open"], view, **_PRIVATE, **_DECODING)
    return view


def _ask_tab(context: AppContext, clip: Any) -> None:
    tab = AskTab(context)
    gr.HTML(_NO_RECORDING)
    with gr.Column(elem_classes=["pg-card", "pg-form"]):
        question = gr.Textbox(
            _QUESTIONS[0],
            label="Question",
            max_lines=3,
            max_length=1000,
            elem_id="question",
        )
        _component(
            "",
            "playground.askTab(element)",
            "".join(
                f'<button type="button" class="pg-chip">{escape(text)}</button>'
                for text in _QUESTIONS
            ),
            "pg-examples",
        )
        with gr.Row(equal_height=True):
            style = gr.Radio([PLAIN, CHAT], value=tab.default_style, label="Prompt")
            scope = gr.Radio([WINDOW, WHOLE], value=WHOLE, label="Audio", elem_id="scope")
            follow_up = gr.Checkbox(value=False, label="Follow up", info=_FOLLOW_UP)
        button = gr.Button("Ask", variant="primary", elem_id="ask")
    gr.HTML('<p class="pg-status" id="ask-status" role="status"></p>')
    answers = gr.HTML(elem_id="answers")

    def ask(question: str, style: str, follow_up: bool, scope: str, request: gr.Request) -> Any:
        yield from tab.ask(question, style, follow_up, scope, request)

    def refresh(request: gr.Request) -> str:
        return tab.refresh(request)

    gr.on(
        [button.click, question.submit],
        ask,
        [question, style, follow_up, scope],
        answers,
        trigger_mode="once",
        **_PRIVATE,
        **_ON_MODEL,
    ).then(None, js="() => playground.finishAnswer()", **_PRIVATE)
    clip.change(refresh, None, answers, **_PRIVATE, **_CONCURRENT)


def _hidden_states_tab(context: AppContext, channels: dict[str, Any]) -> None:
    tab = HiddenStatesTab(context)
    taps = [str(tap) for tap in context.model.taps]
    view = _component(
        "hidden_states.html",
        f"playground.hiddenStatesTab(element, props, watch, {script_json(taps)})",
        LAST_INDEX=str(len(taps) - 1),
        NO_RECORDING=_NO_RECORDING,
    )
    # While the slider moves, only the last of the requests that queue up is answered.
    latest = {"trigger_mode": "always_last", **_PRIVATE}
    channel = channels["hidden_states"]
    channel.submit(_with_request(tab.view), channel, view, **latest, **_CONCURRENT)
    for name, handler, script in (
        ("time_tap", tab.time_tap, "playground.showTapTime"),
        ("lens", tab.lens, "playground.showLens"),
    ):
        channel, target = channels[name], _script_call(script)
        channel.submit(_with_request(handler), channel, target, **latest, **_ON_MODEL)


def _compare_tab(context: AppContext, channels: dict[str, Any]) -> None:
    view = _component(
        "compare.html",
        "playground.compareTab(element, props, watch)",
        EXAMPLES=_example_chips(),
        NO_RECORDING=_NO_RECORDING,
    )
    handler = _with_request(CompareTab(context).compare)
    channels["compare"].submit(handler, channels["compare"], view, **_PRIVATE, **_DECODING)


def _search_tab(context: AppContext, channels: dict[str, Any]) -> None:
    tab = SearchTab(context)
    collection = tab.collection
    windows = counted(len(collection), "window")
    about = f"{collection.name}: {windows}, tap {collection.spec.tap}."
    view = _component(
        "search.html",
        f"playground.searchTab(element, props, watch, {script_json(about)})",
        NO_RECORDING=_NO_RECORDING,
    )
    channel = channels["search"]
    channel.submit(_with_request(tab.search), channel, view, **_PRIVATE, **_ON_MODEL)
    _connect(channels, "map", tab.map, "playground.showMap", _ON_MAP)
    _connect(channels, "play", tab.play, "playground.playResult")


def _connect(
    channels: dict[str, Any],
    name: str,
    handler: Any,
    script: str,
    queue: dict[str, Any] = _CONCURRENT,
) -> None:
    """Answer a channel's requests by calling a function of the page's scripts."""
    channel, target = channels[name], _script_call(script)
    channel.submit(_with_request(handler), channel, target, **_PRIVATE, **queue)


def _downloads(view: str, *formats: str) -> None:
    _component("", f"playground.downloads(element, '{view}', {list(formats)})", " ")


def _script_call(function: str) -> Any:
    """An invisible component that passes each new value to a function of the page's scripts."""
    return _component("", f"watch('value', () => {function}(props.value))", " ")


def _example_chips() -> str:
    return "".join(
        f'<button type="button" class="pg-chip" data-example="{name}">{title}</button>'
        for name, title in example_titles().items()
    )


def _with_request(handler: Any) -> Any:
    """A handler with the annotation by which Gradio passes the request."""

    def handle(data: Any, request: gr.Request) -> Any:
        return handler(data, request)

    return handle


def _remove_session(context: AppContext) -> Any:
    def remove(request: gr.Request) -> None:
        context.sessions.remove(request.session_hash)

    return remove


def _channel(name: str) -> Any:
    """A hidden component by which the page's scripts send requests to Python."""
    return gr.HTML(
        {},
        html_template="",
        js_on_load=f"playground.connect('{name}', trigger, props)",
        visible="hidden",
    )


def _component(
    file: str, script: str, html: str = "", classes: str = "", **replacements: str
) -> Any:
    """A component drawn by a script, from a template in static/ or from HTML.

    Gradio runs code in templates (`${x}`, `{{x}}`): no name may be written into one, even escaped.
    """
    html = html or _read(file)
    for placeholder, text in replacements.items():
        html = html.replace(placeholder, text)
    return gr.HTML(
        None,
        html_template=html,
        js_on_load=script,
        apply_default_css=False,
        elem_classes=classes or None,
    )


def _header(context: AppContext) -> str:
    name, limits = context.model_name, context.limits
    name = "the small embedded checkpoint" if name == "embedded" else name
    adapter = context.adapter_name
    with_adapter = "" if adapter is None else f", with the adapter <b>{escape(adapter)}</b>"
    return (
        f'<header class="pg-header" data-max-bytes="{limits.upload_bytes}" '
        f'data-max-bytes-text="{limits.upload_text}">'
        f"<h1>Qwen Audio Playground</h1><p>Model: <b>{escape(name)}</b>{with_adapter}</p>"
        '<p class="pg-open-name" data-open-name aria-live="polite"></p></header>'
    )


@cache
def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")

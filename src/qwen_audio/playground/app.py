"""The Gradio page: its document, and which handler answers which request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import gradio as gr

from qwen_audio.playground.tabs.ask import AskTab
from qwen_audio.playground.tabs.audio import AudioTab
from qwen_audio.playground.tabs.choices import ChoicesCard
from qwen_audio.playground.tabs.collection import CollectionTab
from qwen_audio.playground.tabs.compare import CompareTab
from qwen_audio.playground.tabs.edits import EditsCard
from qwen_audio.playground.tabs.export import Exports
from qwen_audio.playground.tabs.hidden_states import HiddenStatesTab
from qwen_audio.playground.tabs.lens import LensCard
from qwen_audio.playground.tabs.map import MapCard
from qwen_audio.playground.tabs.occlusion import OcclusionCard
from qwen_audio.playground.tabs.search import SearchCard
from qwen_audio.playground.tabs.snippets import Snippets
from qwen_audio.playground.tabs.trace import TraceCard

from .context import AppContext
from .document import page_document

__all__ = ["build_page", "called_functions", "handlers", "page_options"]

_Handler: TypeAlias = Callable[[Any, Any], dict[str, Any] | Iterator[dict[str, Any]]]
_Queue: TypeAlias = dict[str, Any]

_ON_MODEL: _Queue = {"concurrency_id": "model", "concurrency_limit": 1}
"""For handlers that use the model: one at a time, in order; waiting visitors see their place."""
_CONCURRENT: _Queue = {"concurrency_id": "concurrent", "concurrency_limit": 8}
"""For handlers that mostly return cached results."""
_DECODING: _Queue = {"concurrency_id": "decoding", "concurrency_limit": 24}
"""For handlers that decode a recording, which may take seconds, before they use the model."""
_ON_MAP: _Queue = {"concurrency_id": "map", "concurrency_limit": 1}
"""For the map: the first request computes it, later ones find it cached."""
_ON_LAYOUT: _Queue = {"concurrency_id": "layout", "concurrency_limit": 1}
"""For UMAP, beside the map that is shown meanwhile."""


def page_options(context: AppContext) -> dict[str, Any]:
    """Keyword arguments of `mount_gradio_app`: the page's document, all of it served locally."""
    return {"theme": gr.themes.Base(font=["system-ui"]), "head": page_document(context)}


def build_page(context: AppContext) -> gr.Blocks:
    """The requests of the page, each wired to its handler."""
    with gr.Blocks(title="Qwen Audio Playground", analytics_enabled=False) as page:
        for name, (handler, queue) in handlers(context).items():
            _connect(name, handler, queue)
        page.unload(_remove_session(context))
    return page


def called_functions(page: gr.Blocks) -> frozenset[int]:
    """The functions of a page that its scripts call: not that for its end."""
    return frozenset(
        index
        for index, function in page.fns.items()
        if function.fn is not None and not any(event == "unload" for _, event in function.targets)
    )


def handlers(context: AppContext) -> dict[str, tuple[_Handler, _Queue]]:
    """By the name of a channel, by which the page's scripts send requests."""
    ask, hidden_states, compare = AskTab(context), HiddenStatesTab(context), CompareTab(context)
    table: dict[str, tuple[_Handler, _Queue]] = {
        "open": (AudioTab(context).open, _DECODING),
        "questions": (ask.questions, _CONCURRENT),
        "ask": (ask.ask, _ON_MODEL),
        "stop": (ask.stop, _CONCURRENT),
        "score": (ChoicesCard(context).score, _ON_MODEL),
        "occlusion": (OcclusionCard(context).occlusion, _ON_MODEL),
        "hidden_states": (hidden_states.view, _CONCURRENT),
        "time_tap": (hidden_states.time_tap, _ON_MODEL),
        "lens": (LensCard(context).lens, _ON_MODEL),
        "edit": (EditsCard(context).edit, _ON_MODEL),
        "compare": (compare.compare, _DECODING),
        "swap": (compare.swap, _CONCURRENT),
        "trace": (TraceCard(context).trace, _ON_MODEL),
        "file": (Exports(context).file, _CONCURRENT),
        "snippets": (Snippets(context).snippets, _CONCURRENT),
    }
    if context.collection is not None:
        rows = CollectionTab(context)
        map_tab = MapCard(rows)
        table |= {
            "search": (SearchCard(rows).search, _ON_MODEL),
            "map": (map_tab.map, _ON_MAP),
            "layout": (map_tab.layout, _ON_LAYOUT),
            "colours": (map_tab.colours, _CONCURRENT),
            "rows": (rows.rows, _CONCURRENT),
            "order": (rows.order, _CONCURRENT),
            "filter": (rows.filter, _CONCURRENT),
            "play": (rows.play, _CONCURRENT),
        }
    return table


def _connect(name: str, handler: _Handler, queue: _Queue) -> None:
    """A hidden component whose values are requests, and another one whose values are answers."""
    hidden: dict[str, Any] = {"html_template": "", "visible": "hidden"}
    # Gradio may run this before the document, which its page carries, is there.
    connect = (
        "(function connect() { if (!window.playground?.connect) setTimeout(connect, 10); "
        f"else playground.connect('{name}', trigger, props); }})()"
    )
    answered = f"watch('value', () => playground.answered('{name}', props.value))"
    channel = gr.HTML({}, js_on_load=connect, **hidden)
    answer = gr.HTML(None, js_on_load=answered, **hidden)
    channel.submit(
        _with_request(handler),
        channel,
        answer,
        trigger_mode="multiple",  # the page sends one after another, as soon as it is answered
        show_progress="hidden",
        api_visibility="private",
        **queue,
    )


def _with_request(handler: _Handler) -> Any:
    """A handler with the annotation by which Gradio passes the request."""
    if inspect.isgeneratorfunction(inspect.unwrap(handler)):

        def stream(data: Any, request: gr.Request) -> Any:
            yield from handler(data, request)

        return stream

    def handle(data: Any, request: gr.Request) -> Any:
        return handler(data, request)

    return handle


def _remove_session(context: AppContext) -> Any:
    def remove(request: gr.Request) -> None:
        context.sessions.remove(request.session_hash)

    return remove

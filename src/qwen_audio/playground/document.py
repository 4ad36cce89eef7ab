"""The page's document: its HTML, styles and scripts, carried by the head of Gradio's page."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from qwen_audio.analysis.html_text import script_json

from .context import AppContext
from .examples import example_titles
from .suggested_questions import suggested_questions

__all__ = ["TABS", "page_document", "page_html"]

_STATIC = Path(__file__).parent / "static"
TABS = {
    "audio": "Audio",
    "ask": "Ask",
    "hidden_states": "Hidden states",
    "compare": "Compare",
    "collection": "Collection",
}
"""Name and title; the last one only with a collection."""
_SCRIPTS = (
    *("core", "requests", "draw", "strip", "player", "state", "shell", "export", "tour"),
    *(
        "audio",
        "ask",
        "choices",
        "occlusion",
        "hidden_states",
        "lens",
        "edits",
        "compare",
        "trace",
        "map",
        "table",
    ),
    *("collection", "start"),
)
_STYLES = ("style", "export", "ask", "hidden_states", "compare", "collection")


def page_document(context: AppContext) -> str:
    """Elements of the page's head: a script puts the document into the body when that is there.

    Gradio's own elements only carry requests, and stay hidden.
    """
    facts = {
        "maxBytes": context.limits.upload_bytes,
        "maxBytesText": context.limits.upload_text,
        "maxSecondsText": context.limits.recording_text,
        "model": context.model_name,
        "taps": [str(tap) for tap in context.model.taps],
        "examples": example_titles(),
        "tabs": [name for name in TABS if name != "collection" or context.collection is not None],
        "glossary": json.loads(_read("glossary.json")),
    }
    styles = "\n".join(_read(f"{name}.css") for name in _STYLES)
    scripts = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    return (
        f"<style>{styles}</style>\n<script>\nwindow.playground = {{}};\n"
        f"playground.facts = {script_json(facts)};\n"
        f"playground.html = {script_json(page_html(context))};\n{scripts}\n</script>"
    )


def page_html(context: AppContext) -> str:
    """The document's HTML."""
    tabs = [name for name in TABS if name != "collection" or context.collection is not None]
    buttons = "".join(
        f'<button type="button" role="tab" id="pg-tab-{name}" aria-controls="pg-panel-{name}" '
        f'aria-selected="false" tabindex="-1" data-tab="{name}">{TABS[name]}</button>'
        for name in tabs
    )
    panels = "".join(
        f'<section role="tabpanel" id="pg-panel-{name}" aria-labelledby="pg-tab-{name}" '
        f'data-panel="{name}" hidden>{_read(f"{name}.html")}</section>'
        for name in tabs
    )
    replacements: dict[str, Any] = {
        "MODEL": _model_html(context),
        "TAB_BUTTONS": buttons,
        "TAB_PANELS": panels,
        "EXAMPLES": _example_buttons(),
        "MAX_SECONDS": context.limits.recording_text,
        "MAX_BYTES": context.limits.upload_text,
        "LIMITS": context.limits.summary,
    }
    html = _read("page.html")
    for placeholder, text in replacements.items():
        html = html.replace(f"{{{placeholder}}}", text)
    return html


def _model_html(context: AppContext) -> str:
    """The model's name, what its checkpoint says of itself, and how to use another one."""
    name, adapter = context.model_name, context.adapter_name
    with_adapter = "" if adapter is None else f", with the adapter <b>{escape(adapter)}</b>"
    about = suggested_questions(context.model).about
    return (
        f"Model: <b>{escape(name)}</b>{with_adapter}. {escape(about or '')} "
        "Another model: <code>qwen-audio play --model Qwen/Qwen2-Audio-7B-Instruct</code>"
    )


def _example_buttons() -> str:
    return "".join(
        f'<button type="button" class="pg-chip" data-example="{escape(name)}">{escape(title)}'
        "</button>"
        for name, title in example_titles().items()
    )


@cache
def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")

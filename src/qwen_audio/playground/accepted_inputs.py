"""What the functions of a Gradio page accept, from the components that are their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .page_requests import Inputs

__all__ = ["accepted_inputs"]


def accepted_inputs(page: Any) -> Inputs:
    """By function that the page's scripts call: what each of its inputs accepts."""
    return {
        index: [_acceptance(component) for component in function.inputs]
        for index, function in page.fns.items()
        if function.fn is not None and not any(event == "unload" for _, event in function.targets)
    }


def _acceptance(component: Any) -> Callable[[Any], bool]:
    """Whether a value is one that the page sends for a component."""
    import gradio as gr

    if isinstance(component, gr.HTML):
        return lambda value: isinstance(value, dict)
    if isinstance(component, gr.Checkbox):
        return lambda value: isinstance(value, bool)
    if isinstance(component, gr.Radio):
        choices = [value for _, value in component.choices]
        return lambda value: isinstance(value, str) and value in choices
    return lambda value: isinstance(value, str)

"""Playground: a Gradio page for one model and, optionally, a collection; `qwen-audio play`.

It uses the public Python API only. `static/` holds the page's scripts, templates and style.
"""

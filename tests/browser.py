"""Playground servers in processes of their own, and headless Chromium to test them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forked import ForkedProcess

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
READY = ".pg-has-recording [data-pipeline] li"
"""Selector of an element that is there once the first example is open."""
TIMEOUT_MS = 60_000
"""Timeout of any wait in the browser, in milliseconds: generous, for busy machines."""


PLAY = """
import os, sys, tempfile
from qwen_audio.cli.main import main

os.environ |= dict.fromkeys(("TMPDIR", "GRADIO_TEMP_DIR"), sys.argv[1])
tempfile.tempdir = None
sys.exit(main(["play", "--json", *sys.argv[2:]]))
"""


class PlaygroundProcess:
    """A running playground: its address and process."""

    def __init__(self, url: str, process: ForkedProcess) -> None:
        self.url, self.process = url, process

    @property
    def resident_bytes(self) -> int:
        """Resident memory of its process."""
        pages = Path(f"/proc/{self.process.id}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def playground_process(temporary: Path, *options: str | Path) -> Iterator[PlaygroundProcess]:
    """`qwen-audio play` in a process of its own, on a free port, with a folder for its files."""
    chromium_path()
    with ForkedProcess(PLAY, temporary, *options) as process:
        line = process.stdout.readline()
        assert line, process.new_errors()
        yield PlaygroundProcess(json.loads(line)["url"], process)


def chromium_path() -> str:
    """Path of Chromium. Without it, Playwright or Gradio: fails in CI, skips elsewhere."""
    missing = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is not None and not missing:
        return executable
    message = f"the playground is tested in a browser: install {', '.join(missing) or 'chromium'}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium, whose pages share a cache: the second one loads in half the time."""
    executable = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        chromium = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield chromium
        chromium.close()


@contextmanager
def open_page(
    chromium: Any,
    url: str,
    ready: str = READY,
    *,
    own_window: bool = False,
    phone: bool = False,
    scheme: str = "light",
) -> Iterator[Any]:
    """A new page, which is checked.

    Args:
        ready: selector of an element to wait for.
        own_window: not a tab of the window: a page in the background is slowed down.
        phone: of a phone's size.
        scheme: "light" or "dark".
    """
    context = chromium.browser.new_context() if own_window else chromium
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.emulate_media(color_scheme=scheme)
    if phone:
        page.set_viewport_size({"width": 390, "height": 844})
    with checked(page, url):
        page.goto(url)
        page.wait_for_selector(ready)
        yield page
    (context if own_window else page).close()


@contextmanager
def checked(page: Any, url: str) -> Iterator[None]:
    """From now on, a page's requests to other hosts than a URL's, errors and dialogs fail."""
    requested: list[str] = []
    errors: list[str] = []

    def dismiss(dialog: Any) -> None:
        errors.append(dialog.message)
        dialog.dismiss()

    handlers: dict[str, Callable[[Any], None]] = {
        "request": lambda request: requested.append(request.url),
        "pageerror": lambda error: errors.extend(_unless_left(str(error))),
        "console": lambda message: errors.extend(_console_errors(message)),
        "dialog": dismiss,
    }
    for event, handler in handlers.items():
        page.on(event, handler)
    yield
    for event, handler in handlers.items():
        page.remove_listener(event, handler)
    other_hosts = [
        address for address in requested if not address.startswith((url, "data:", "blob:"))
    ]
    assert not other_hosts, other_hosts
    assert not errors, errors


def _console_errors(message: Any) -> list[str]:
    """The text of an error that a page logs; refused requests, which some tests want, aside.

    Such a request is that for Gradio's manifest, by which a page can be installed as an app.
    """
    refused = message.text.startswith(("Failed to load resource", "Manifest fetch"))
    return _unless_left(message.text) if message.type == "error" and not refused else []


def _unless_left(error: str) -> list[str]:
    """An error, unless it is of a request that was under way when its page was left."""
    left = ("AbortError: signal is aborted", "Unexpected error Connection errored out", "Response")
    return [] if error.startswith(left) else [error]


def choose_file(page: Any, path: Path | dict[str, Any]) -> None:
    """Choose a file, and wait until it is opened or rejected."""
    select_tab(page, "Audio")
    page.evaluate(  # an earlier one is not waited for
        """() => {
            playground.clip = null;
            document.querySelectorAll('[data-panel=audio] [data-status], [data-open-status]')
              .forEach((place) => playground.setStatus(place));
        }"""
    )
    page.set_input_files("[data-panel=audio] input[type=file]", path)
    page.wait_for_function(
        """() => playground.clip !== null || [...document.querySelectorAll(
           '[data-panel=audio] [data-status], [data-open-status]')].some(
           (place) => place.dataset.kind === 'problem')"""
    )


def open_example(page: Any, name: str) -> None:
    """Open an example, and wait until it is open."""
    page.evaluate("(name) => playground.open({ example: name })", name)


def axe_violations(page: Any) -> list[str]:
    """What axe-core finds wrong on the page as it is shown: rule, and the elements."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(script.read_text(encoding="utf-8") + ";undefined")
    found = page.evaluate("() => axe.run()")
    return [
        f"{violation['id']}: {[node['html'][:200] for node in violation['nodes']]}"
        for violation in found["violations"]
    ]


def select_tab(page: Any, name: str) -> None:
    """Select a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def ask(page: Any, question: str | None = None) -> str:
    """Ask a question, and wait for the complete answer."""
    select_tab(page, "Ask")
    if question is not None:
        page.fill("#question", question)
    before = page.locator(".pg-answer").count()
    page.click("#ask")
    page.wait_for_function(
        """(count) => document.querySelectorAll('.pg-answer').length > count
           && document.querySelector('.pg-answer').querySelector('dl')""",
        arg=before,
    )
    return str(page.locator(".pg-answer .pg-text").first.inner_text())


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Poll a function until it returns true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

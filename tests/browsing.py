"""The playground in a process of its own, and Debian's Chromium to visit it with."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60_000
"""In milliseconds: how long a page may take at most, on a busy machine."""


class Served:
    """An open playground: its address, its process."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process

    @property
    def resident_bytes(self) -> int:
        """What its process takes of memory now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def served(*arguments: str | Path) -> Iterator[Served]:
    """`qwen-audio play` as people start it, on a port that is free."""
    chromium_path()
    command = [sys.executable, "-m", "qwen_audio.cli.main", "play", "--json", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        try:
            if not line:
                raise RuntimeError(process.stderr.read())
            yield Served(json.loads(line)["url"], process)
        finally:
            process.terminate()
            process.wait(30)


def chromium_path() -> str:
    """Where Chromium is. Where it, or what drives it, is missing: in CI a failure, else a skip."""
    missing = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is not None and not missing:
        return found
    words = f"the playground is tested in a browser: install {', '.join(missing) or 'chromium'}"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    found = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield started
        started.close()


@contextmanager
def visiting(chromium: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page of a visitor of their own; what it asks of other hosts, and its errors, fail."""
    context = chromium.new_context(accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector("[data-example]")
    yield page
    elsewhere = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
    context.close()
    assert not elsewhere
    assert not errors


def choose(page: Any, path: Path | dict[str, Any]) -> None:
    """Give the page a file and wait until it is shown, or refused."""
    tab(page, "Hear")
    page.set_input_files("[data-drop] input[type=file]", path)
    name = path.name if isinstance(path, Path) else path["name"]
    page.wait_for_function(
        """(name) => document.querySelector('[data-name]')?.textContent === name
           || document.querySelector('[data-status]').dataset.kind === 'problem'""",
        arg=name,
    )


def tab(page: Any, name: str) -> None:
    """Turn to a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def ask(page: Any, question: str | None = None) -> str:
    """Ask, and wait for the whole answer."""
    tab(page, "Ask")
    if question is not None:
        page.fill("#question textarea", question)
    before = page.locator(".pg-answer").count()
    page.click("#ask")
    page.wait_for_function(
        """(count) => document.querySelectorAll('.pg-answer').length > count
           && document.querySelector('.pg-answer').querySelector('dl')""",
        arg=before,
    )
    return str(page.locator(".pg-answer .pg-text").first.inner_text())


def wait_until(true: Any, seconds: float = 20.0) -> None:
    """Try again and again, until a function is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)

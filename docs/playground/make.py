"""Screenshots of docs/playground.md: `python docs/playground/make.py [URL]`.

Starts a playground on the examples (or uses the one at URL), visits every tab with Chromium at
desktop and phone size, in light and dark, and writes a WebP file each.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
THEMES = ("light", "dark")


def main() -> None:
    """Screenshots of all tabs, sizes and themes."""
    with opened(sys.argv[1:]) as url, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for size, (width, height) in SIZES.items():
            for theme in THEMES:
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=theme,
                    device_scale_factor=2 if size == "phone" else 1,
                )
                page = context.new_page()
                page.set_default_timeout(120_000)
                page.goto(url)
                page.wait_for_selector(".pg-has-recording [data-pipeline] li")
                for name in visit(page):
                    page.mouse.move(0, 0)
                    page.wait_for_timeout(600)
                    shot = Image.open(io.BytesIO(page.screenshot()))
                    shot.convert("RGB").save(HERE / f"{name}-{size}-{theme}.webp", quality=80)
                context.close()
        browser.close()


def visit(page: Any) -> Iterator[str]:
    """Visit every tab; yields its name once it shows something."""
    page.evaluate("() => playground.player.select(1.0, 2.4)")
    page.evaluate("() => playground.player.seek('clip', 1.6)")
    yield "audio"
    page.evaluate("() => playground.player.select()")
    select_tab(page, "Ask")
    page.click("#ask")
    page.wait_for_selector(".pg-answer .pg-text")
    page.click("[data-choices-form] .pg-primary")
    page.wait_for_selector("[data-choices-result]:not([hidden])")
    yield "ask"
    page.click("[data-occlusion-form] .pg-primary")
    page.wait_for_selector("[data-occlusion-result]:not([hidden])")
    show(page, "[data-occlusion-card]")
    yield "occlusion"
    select_tab(page, "Hidden states")
    page.evaluate("() => playground.state.set({ tap: 'encoder.2' })")
    page.wait_for_selector("[data-shown='encoder.2']")
    yield "hidden-states"
    page.wait_for_selector(".pg-lens-cell")
    page.wait_for_function("() => document.querySelector('.pg-tap').innerText.includes(' ms')")
    show(page, ".pg-lens")
    yield "lens"
    select_tab(page, "Compare")
    page.locator("[data-panel=compare] [data-example='djembe.flac']").click()
    page.wait_for_selector("[data-pair]:not([hidden])")
    show(page, "[data-pair]")
    yield "compare"
    select_tab(page, "Collection")
    page.wait_for_selector("[data-points]")
    show(page, "[data-points]")
    yield "collection"


def select_tab(page: Any, tab: str) -> None:
    """Select a tab and scroll to the top."""
    page.get_by_role("tab", name=tab, exact=True).click()
    page.evaluate("() => document.querySelector('[data-scroll]').scrollTo(0, 0)")


def show(page: Any, selector: str) -> None:
    """Scroll to an element."""
    page.wait_for_selector(selector)
    page.evaluate(
        "(selector) => document.querySelector(selector).scrollIntoView({ block: 'start' })",
        selector,
    )
    page.evaluate("() => document.querySelector('[data-scroll]').scrollBy(0, -76)")


@contextmanager
def opened(addresses: list[str]) -> Iterator[str]:
    """The given address, or that of a playground started here on the examples."""
    if addresses:
        yield addresses[0]
        return
    run = [sys.executable, "-m", "qwen_audio"]
    with tempfile.TemporaryDirectory() as folder:
        music = str(Path(folder) / "music.lance")
        index = [*run, "index", str(EXAMPLES), "-o", music, "--describe"]
        subprocess.run([*index, "--window", "3", "--hop", "0.15"], check=True)
        command = [*run, "play", "--json", "--collection", music]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield json.loads(process.stdout.readline())["url"]
            finally:
                process.terminate()


if __name__ == "__main__":
    main()

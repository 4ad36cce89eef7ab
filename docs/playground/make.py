"""Screenshots of docs/playground.md: `python docs/playground/make.py [URL]`.

Starts a playground on the examples (or uses the one at URL), visits every tab with Chromium at
desktop and phone size, in light and dark, and writes a WebP file each.
"""

from __future__ import annotations

import io
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
SIZES = {"desktop": (1180, 820), "phone": (390, 844)}
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
                for tab in visit(page):
                    page.mouse.move(0, 0)
                    page.wait_for_timeout(600)
                    shot = Image.open(io.BytesIO(page.screenshot()))
                    shot.convert("RGB").save(HERE / f"{tab}-{size}-{theme}.webp", quality=80)
                context.close()
        browser.close()


def visit(page: Any) -> Iterator[str]:
    """Visit every tab; yields its name once it shows something."""
    page.click("[data-example='guitar.flac']")
    page.wait_for_selector("[data-clip]:not([hidden])")
    page.evaluate("() => playground.player.seek('clip', 2.4)")
    yield "audio"
    select_tab(page, "Ask")
    page.click("#ask button, button#ask")
    page.wait_for_selector(".pg-answer dl")
    page.click("text=Are there drums?")
    page.click("#ask button, button#ask")
    page.wait_for_function("() => document.querySelectorAll('.pg-answer dl').length === 2")
    yield "ask"
    select_tab(page, "Hidden states")
    page.wait_for_selector("[data-shown='mel']")
    for _ in range(3):
        page.press("[data-depth]", "ArrowRight")
    page.wait_for_selector("[data-shown='encoder.2']")
    page.wait_for_function("() => document.querySelector('.pg-tap').innerText.includes(' ms')")
    page.wait_for_selector(".pg-lens-cell")
    yield "hidden-states"
    page.evaluate("() => document.querySelector('[data-lens]').scrollIntoView({ block: 'center' })")
    yield "lens"
    select_tab(page, "Compare")
    page.locator("[data-example='djembe.flac']").last.click()
    page.wait_for_selector("[data-pair]:not([hidden])")
    yield "compare"
    if page.get_by_role("tab", name="Search", exact=True).count():
        select_tab(page, "Search")
        page.click("[data-by-clip]")
        page.wait_for_selector("[data-results] li")
        page.locator("[data-results]").scroll_into_view_if_needed()
        yield "search"
        page.wait_for_selector("[data-chart][data-points]")
        page.evaluate("() => document.querySelector('[data-chart]').scrollIntoView()")
        page.evaluate("() => window.scrollBy(0, -24)")
        page.locator("[data-map]").press("Home")
        yield "map"


def select_tab(page: Any, tab: str) -> None:
    """Select a tab and scroll to the top."""
    page.get_by_role("tab", name=tab, exact=True).click()
    page.evaluate("() => window.scrollTo(0, 0)")


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
        command = [*run, "play", "--collection", music]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield line.split(" at ")[1].split(" (")[0].strip()
            process.terminate()


if __name__ == "__main__":
    main()

"""Export menus in the browser: files, code, the keyboard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browser import axe_violations, choose_file
from recordings import write_wav

pytestmark = pytest.mark.slow

MENU = "[data-panel=audio] .pg-export"
FORMATS = [
    "Picture (PNG)",
    "Vector graphic (SVG)",
    "Arrays (npz)",
    "Table (CSV)",
    "Python code …",
    "Command …",
]


def opener(page: Any) -> Any:
    return page.locator(f"{MENU} [aria-haspopup]")


def item(page: Any, name: str) -> Any:
    return page.get_by_role("menuitem", name=name)


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.textContent"))


def test_the_menu_by_keyboard(page: Any) -> None:
    opener(page).focus()
    assert opener(page).get_attribute("aria-expanded") == "false"
    page.keyboard.press("ArrowDown")
    assert opener(page).get_attribute("aria-expanded") == "true"
    assert page.locator(f"{MENU} [role=menuitem]").all_inner_texts() == FORMATS
    assert focused(page) == FORMATS[0]
    for key, expected in (
        *(("ArrowUp", -1), ("ArrowDown", 0), ("ArrowDown", 1), ("End", -1), ("Home", 0)),
        *(("c", 5), ("p", 0), ("p", 4), ("x", 4)),
    ):
        page.keyboard.press(key)
        assert focused(page) == FORMATS[expected], key
    page.keyboard.press("Escape")
    assert page.locator(f"{MENU} [role=menu]").is_hidden()
    assert focused(page) == "Export"
    page.keyboard.press("ArrowUp")
    assert focused(page) == FORMATS[-1]
    page.keyboard.press("Tab")  # leaves the menu, which closes
    assert page.locator(f"{MENU} [role=menu]").is_hidden()
    opener(page).click()
    page.locator("[data-panel=audio] h2").first.click()
    assert page.locator(f"{MENU} [role=menu]").is_hidden()


def test_files_are_downloaded(page: Any, model: qa.AudioModel) -> None:
    view = model.view(qa.load_waveform(Path("examples") / "guitar.flac"), tap="mel")
    starts = {"SVG": b"<?xml", "CSV": b"start_seconds,"}
    for name, start in starts.items():
        opener(page).click()
        with page.expect_download() as download:
            item(page, name).click()
        assert download.value.suggested_filename == f"guitar.audio.{name.lower()}"
        assert Path(download.value.path()).read_bytes().startswith(start)
    opener(page).click()
    with page.expect_download() as download:
        item(page, "npz").click()
    arrays = np.load(io.BytesIO(Path(download.value.path()).read_bytes()))
    np.testing.assert_array_equal(arrays["rows"], view.rows)
    assert focused(page) == "Export"


def test_code_is_shown_in_a_dialog(page: Any) -> None:
    """Of a file whose name tries to be markup and code."""
    samples = np.full((1, 16_000), 0.1, np.float32)
    name = "it's <b>${x}<b>\n`id`.wav"
    content = {"name": name, "mimeType": "audio/wav", "buffer": write_wav(samples, 16_000)}
    choose_file(page, content)
    opener(page).click()
    item(page, "Python").press("Enter")
    dialog = page.get_by_role("dialog", name="Python code")
    code = dialog.locator("code").inner_text()
    assert f"clip = qa.load_waveform({name!r})" in code.splitlines()
    assert "Run it in a folder that holds it's <b>${x}<b>\\n`id`.wav." in dialog.inner_text()
    assert axe_violations(page) == []
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    dialog.get_by_role("button", name="Copy").click()
    dialog.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("window.copied") == code
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    assert focused(page) == "Export"

    opener(page).click()
    item(page, "Command").click()
    dialog = page.get_by_role("dialog", name="Command")
    line = dialog.locator("code").inner_text()
    assert line.startswith(r"qwen-audio plot $'it\'s <b>${x}<b>\x0a`id`.wav' --tap mel")
    dialog.get_by_role("button", name="Close").click()
    page.locator("dialog").wait_for(state="detached")


def test_there_is_no_command_for_a_part(page: Any) -> None:
    page.evaluate("() => playground.open({ part: [1, 2] })")
    opener(page).click()
    item(page, "Command").click()
    dialog = page.get_by_role("dialog", name="Command")
    assert "commands process whole recordings" in dialog.inner_text()
    assert dialog.get_by_role("button", name="Copy").count() == 0

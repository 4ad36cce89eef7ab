"""Latency of the playground's page in Chromium: first picture, caption, hidden states; taps."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Result, Settings, SkipBenchmark, Target, log_progress
from .machine import require_packages
from .playground_server import playground_server
from .rounds import ROOT, median, worker_environment
from .synthetic_audio import SAMPLING_RATE
from .this_package import load_model

__all__ = [
    "CHANGE_TAP_SCRIPT",
    "chromium_browser",
    "first_caption",
    "first_hidden_states",
    "first_picture",
    "tap_change",
]

DTYPE = "float32"
CHANGE_TAP_SCRIPT = """() => new Promise((done) => {
    const slider = document.querySelector('[data-depth]');
    const start = performance.now();
    slider.stepUp();
    new MutationObserver((_, seen) => {
        seen.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    }).observe(slider.closest('[data-shown]'), { attributeFilter: ['data-shown'] });
    slider.dispatchEvent(new Event('input'));
})"""
"""Moves the slider of taps by one; resolves to the milliseconds until the page shows the tap."""

PAINTED_SCRIPT = """() => new Promise((done) => requestAnimationFrame(() =>
    requestAnimationFrame(() => done(performance.now() / 1000))))"""
"""Resolves, once the page has been painted, to the seconds since it was opened."""


def first_picture(settings: Settings) -> Result:
    """From opening the page until its example's waveform, spectrogram and caption are there."""
    require_packages("gradio", "playwright")
    rounds = 2 if settings.quick else settings.rounds
    cold: list[float] = []
    cached: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        playground_server(settings, folder) as (url, _),
        chromium_browser() as chromium,
    ):
        for _ in range(rounds + 1):
            context = chromium.new_context()  # with an empty cache
            for seconds in (cold, cached):
                page = context.new_page()
                page.goto(url, wait_until="commit")
                page.wait_for_selector("[data-caption]:visible")
                seconds.append(page.evaluate(PAINTED_SCRIPT))
                page.close()
            context.close()
    return Result(
        what="from opening the playground's page, with nothing in the browser's cache, until the "
        "example's waveform, log-mel spectrogram and prepared caption are drawn in Chromium",
        dtype=DTYPE,
        figures={"cached_seconds": median(cached[1:]), "longest": max(cold[1:])},
        ratio=median(cold[1:]),
        target=Target(1.5, at_most=True, unit=" s"),
        packages=("gradio",),
    )


def first_hidden_states(settings: Settings) -> Result:
    """From the click on the tab Hidden states until a new recording's rows are drawn."""
    require_packages("gradio", "playwright", "soundfile")
    rounds = 2 if settings.quick else settings.rounds
    spent: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        playground_server(settings, folder) as (url, _),
        chromium_browser() as chromium,
    ):
        clip = _ten_seconds(folder)
        for _ in range(rounds + 1):
            page = _open_page(chromium, url)
            _open_file(page, clip)
            spent.append(
                page.evaluate(
                    """() => new Promise((done) => {
                    const start = performance.now();
                    new MutationObserver((_, seen) => {
                        if (!document.querySelector('[data-shown]')) return;
                        seen.disconnect();
                        requestAnimationFrame(() => done((performance.now() - start) / 1000));
                    }).observe(document.body, { subtree: true, attributeFilter: ['data-shown'] });
                    document.querySelector('[data-tab=hidden_states]').click();
                })"""
                )
            )
            page.close()
    return Result(
        what="from a click on Hidden states until the first tap of 10 s of audio is drawn in "
        "Chromium, nothing of it having been computed before",
        dtype=DTYPE,
        figures={"longest": max(spent[1:]), "rounds": rounds},
        ratio=median(spent[1:]),
        target=Target(1.5, at_most=True, unit=" s"),
        packages=("gradio",),
    )


def first_caption(settings: Settings) -> Result:
    """In each round, in this order:

    - `describe` in a process that has described before, for comparison,
    - the page in Chromium, from choosing the file to its caption,
    - the command `qwen-audio describe` with cached files.
    """
    require_packages("gradio", "playwright", "soundfile")
    clip = ROOT / "examples" / "guitar.flac"
    model = load_model("embedded", DTYPE, settings.threads)
    caption = str(model.describe(clip))
    command = [sys.executable, "-m", "qwen_audio", "describe", str(clip)]
    rounds = 3 if settings.quick else max(settings.rounds, 9)
    describe_seconds: list[float] = []
    click_seconds: list[float] = []
    file_seconds: list[float] = []
    command_seconds: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        playground_server(settings, folder) as (url, _),
        chromium_browser() as chromium,
    ):
        for number in range(rounds + 1):
            start = time.perf_counter()
            model.describe(clip)
            in_process = time.perf_counter() - start
            from_click, from_file = _time_caption(chromium, url, clip, caption)
            env = worker_environment(settings.threads)
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=env)
            by_command = time.perf_counter() - start
            if number:  # the first is a warm-up
                describe_seconds.append(in_process)
                click_seconds.append(from_click)
                file_seconds.append(from_file)
                command_seconds.append(by_command)
                log_progress(f"  {number}/{rounds} {in_process:.3f} s, {from_click:.3f} s")
    return Result(
        what="the first caption on the playground's page, from choosing the file (the guitar) to "
        "the complete answer on the screen, against the command `qwen-audio describe` with cached "
        "files; also from the click on Ask, against `describe` in a process that has described "
        "before",
        dtype=DTYPE,
        figures={
            "describe_seconds": median(describe_seconds),
            "click_to_caption_seconds": median(click_seconds),
            "file_to_caption_seconds": median(file_seconds),
            "command_seconds": median(command_seconds),
            "click_against_describe": _median_ratio(click_seconds, describe_seconds),
            "turns": rounds,
        },
        ratio=_median_ratio(file_seconds, command_seconds),
        target=Target(1.3, at_most=True),
        packages=("gradio",),
    )


def _median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return median(a / b for a, b in zip(numerators, denominators, strict=True))


def tap_change(settings: Settings) -> Result:
    """From a step of the depth slider until the page has drawn the next tap, for every tap."""
    require_packages("gradio", "playwright", "soundfile")
    rounds = 1 if settings.quick else settings.rounds
    milliseconds: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        playground_server(settings, folder) as (url, _),
        chromium_browser() as chromium,
    ):
        clip = _ten_seconds(folder)
        for _ in range(rounds):
            page = _open_page(chromium, url)
            _open_file(page, clip)
            page.get_by_role("tab", name="Hidden states", exact=True).click()
            page.wait_for_selector("[data-shown='mel']")
            page.wait_for_selector(".pg-lens-cell")
            steps = int(page.get_attribute("[data-depth]", "max"))
            milliseconds += [page.evaluate(CHANGE_TAP_SCRIPT) for _ in range(steps)]
            page.close()
    return Result(
        what="from a step of the playground's depth slider to the next tap drawn in Chromium, for "
        "10 s of audio and every tap of the embedded checkpoint: the slowest step",
        dtype=DTYPE,
        figures={
            "median": median(milliseconds),
            "longest": max(milliseconds),
            "steps": len(milliseconds),
        },
        ratio=max(milliseconds),
        target=Target(200, at_most=True, unit=" ms"),
        packages=("gradio",),
    )


def _time_caption(chromium: Any, url: str, clip: Path, caption: str) -> tuple[float, float]:
    """Seconds from the click on Ask to the caption, and from choosing the file, in an open page."""
    page = _open_page(chromium, url)
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.wait_for_selector("#ask")
    page.get_by_role("tab", name="Audio", exact=True).click()
    start = time.perf_counter()
    _open_file(page, clip)
    file_seconds = time.perf_counter() - start
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.wait_for_timeout(300)  # as a user would; pending updates of the page are done
    # Timed in the page, without the latency of the browser's driver.
    ask_seconds = page.evaluate(
        """() => new Promise((done) => {
            const start = performance.now();
            new MutationObserver((_, seen) => {
                if (!document.querySelector('.pg-answer dl')) return;
                seen.disconnect();
                requestAnimationFrame(() => done((performance.now() - start) / 1000));
            }).observe(document.body, { childList: true, subtree: true });
            document.querySelector('#ask').click();
        })"""
    )
    text = page.locator(".pg-answer .pg-text").first.inner_text()
    if text != caption:
        raise RuntimeError(f"the page shows {text!r}, and describe returns {caption!r}")
    page.close()
    return ask_seconds, file_seconds + ask_seconds


def _open_page(chromium: Any, url: str) -> Any:
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    page.goto(url)
    page.wait_for_selector(".pg-has-recording")
    return page


def _open_file(page: Any, clip: Path) -> None:
    page.set_input_files("[data-panel=audio] input[type=file]", clip)
    page.wait_for_function("(name) => playground.clip.name === name", arg=clip.name)


def _ten_seconds(folder: str) -> Path:
    """A WAV file of ten seconds of noise."""
    import soundfile

    samples = np.random.default_rng(0).standard_normal(10 * SAMPLING_RATE).astype(np.float32) / 8
    clip = Path(folder) / "ten seconds.wav"
    soundfile.write(clip, samples, SAMPLING_RATE)
    return clip


@contextmanager
def chromium_browser() -> Iterator[Any]:
    executable = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if executable is None:
        raise SkipBenchmark("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()

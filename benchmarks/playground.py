"""The playground: how soon it answers, and what many visitors at once do to it."""

from __future__ import annotations

import asyncio
import io
import json
import os
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

from .benchmark import Missing, Result, Settings, Target, say
from .machine import need
from .rounds import ROOT, environment, median
from .synthetic_audio import RATE
from .this_package import opened

__all__ = ["first_caption", "tap_change", "visitors", "visitors_clips"]

DTYPE = "float32"
QUESTIONS = ("Describe the music:", "Are there drums?")
TAPS = ("mel", "encoder.2", "projector", "lm.0")
MORE_MEMORY = 50.0
"""In MB: what a process may keep of a minute with twenty visitors."""
_CHANGE = """() => new Promise((done) => {
    const slider = document.querySelector('[data-depth]');
    const start = performance.now();
    slider.stepUp();
    new MutationObserver((_, seen) => {
        seen.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    }).observe(slider.closest('[data-shown]'), { attributeFilter: ['data-shown'] });
    slider.dispatchEvent(new Event('input'));
})"""


def visitors(settings: Settings) -> Result:
    """Everybody sends a recording of their own, asks two questions and looks at four taps, over
    and over; what they must be told has been computed beforehand, in this process."""
    from .playground_client import stay

    need("gradio", "soundfile")
    count, seconds = (3, 2.0) if settings.quick else (20, 60.0)
    clips = visitors_clips(count, settings.threads)
    with tempfile.TemporaryDirectory() as folder, _served(settings, folder) as (url, process):
        # What is made once is made: kernels too, which the processor's libraries keep for each of
        # the latest lengths.
        asyncio.run(_all(url, clips, 1.0))
        before = _settled(process)
        stays = asyncio.run(_all(url, clips, seconds))
        busy = _resident(process)
        after = _settled(process)
        left = [str(path) for path in Path(folder).rglob("*") if path.is_file()]
        again = asyncio.run(stay(url, clips[0], 0.0))
    problems = [problem for one in stays for problem in one.problems]
    mistaken = [mistake for one in stays for mistake in one.mistaken]
    for line in (problems + mistaken + left)[:10]:
        say(f"  {line}")
    waits = sorted(wait for one in stays for wait in one.waits)
    return Result(
        what=f"what the playground keeps in memory after {count} visitors of the embedded "
        f"checkpoint at once, for {seconds:g} s, less what it took before; each with a recording, "
        "two questions and four taps, again and again; every answer compared with `describe` of "
        "that recording",
        dtype=DTYPE,
        figures={
            "visitors": count,
            "answers": sum(one.answers for one in stays),
            "taps": sum(one.taps for one in stays),
            "different_answers": len({clip.answers[QUESTIONS[0]] for clip in clips}),
            "answer_seconds_median": median(waits),
            "answer_seconds_longest": waits[-1],
            "turned_away": sum(one.turned_away for one in stays),
            "problems": len(problems),
            "mistaken": len(mistaken),
            "files_left": len(left),
            "before_mb": before / 1e6,
            "busy_mb": busy / 1e6,
            "after_mb": after / 1e6,
        },
        ratio=(after - before) / 1e6,
        target=Target(MORE_MEMORY, at_most=True, unit=" MB"),
        conditions={
            "no problem": not problems,
            "nobody turned away": not any(one.turned_away for one in stays),
            "every answer is that of the visitor's own recording": not mistaken,
            "no file is left": not left,
            "it still answers": again.answers > 0 and not again.problems,
        },
        packages=("gradio",),
    )


def visitors_clips(count: int, threads: int) -> list[Any]:
    """A recording each: pieces of the examples, no two of one length, with their answers."""
    import soundfile

    from .playground_client import Clip

    model = opened("embedded", DTYPE, threads)
    names = sorted((ROOT / "examples").glob("*.flac"))
    made = []
    for number in range(count):
        samples, rate = soundfile.read(names[number % len(names)], always_2d=True)
        seconds = 1.6 + 0.12 * number
        begin = round(0.4 * number * rate) % max(1, len(samples) - round(seconds * rate))
        piece = samples[begin : begin + round(seconds * rate)] / (1 + number % 4)
        data = io.BytesIO()
        soundfile.write(data, piece, rate, format="FLAC")
        content = data.getvalue()
        said = {question: str(model.describe(content, prompt=question)) for question in QUESTIONS}
        shapes = {tap: model.encode(content, tap=tap, pooling="none").shape for tap in TAPS}
        shapes["lm.0"] = model.activations(content, taps=["lm.0"])["lm.0"].data.shape
        made.append(Clip(f"{number}.flac", content, said, shapes))
    return made


def first_caption(settings: Settings) -> Result:
    """Turn by turn: the command with warm files, a visitor's choosing of the file until its caption
    in Chromium, and, which nobody waits for, `describe` in a process that has described before."""
    need("gradio", "playwright", "soundfile")
    clip = ROOT / "examples" / "guitar.flac"
    model = opened("embedded", DTYPE, settings.threads)
    said = str(model.describe(clip))
    command = [sys.executable, "-m", "qwen_audio.cli.main", "describe", str(clip)]
    turns = 3 if settings.quick else max(settings.turns, 9)
    pairs: list[tuple[float, float, float]] = []
    processes: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _served(settings, folder) as (url, _),
        _browser() as chromium,
    ):
        for turn in range(turns + 1):
            begun = time.perf_counter()
            model.describe(clip)
            warm = time.perf_counter() - begun
            asked, chosen = _caption(chromium, url, clip, said)
            begun = time.perf_counter()
            own = environment(settings.threads)
            subprocess.run(command, check=True, capture_output=True, env=own)
            if turn:  # the first is a warm-up
                pairs.append((warm, asked, chosen))
                processes.append(time.perf_counter() - begun)
                say(f"  {turn}/{turns} {warm:.3f} s, {asked:.3f} s")
    return Result(
        what="the first caption on the playground's page, from choosing the file (the guitar) to "
        "the whole answer in sight, which includes reading and showing it, against the command "
        "`qwen-audio describe` with warm files; also from the click on Ask alone, against "
        "`describe` in a process that has described before",
        dtype=DTYPE,
        figures={
            "describe_seconds": median(warm for warm, _, _ in pairs),
            "click_to_caption_seconds": median(asked for _, asked, _ in pairs),
            "file_to_caption_seconds": median(chosen for _, _, chosen in pairs),
            "command_seconds": median(processes),
            "click_against_describe": median(asked / warm for warm, asked, _ in pairs),
            "turns": turns,
        },
        ratio=median(
            chosen / process for (_, _, chosen), process in zip(pairs, processes, strict=True)
        ),
        target=Target(1.3, at_most=True),
        packages=("gradio",),
    )


def tap_change(settings: Settings) -> Result:
    """A step of the slider, until the page has drawn the next tap, for all taps of 10 s."""
    need("gradio", "playwright", "soundfile")
    import soundfile

    samples = np.random.default_rng(0).standard_normal(10 * RATE).astype(np.float32) / 8
    turns = 1 if settings.quick else settings.turns
    took: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _served(settings, folder) as (url, _),
        _browser() as chromium,
    ):
        clip = Path(folder) / "ten seconds.wav"
        soundfile.write(clip, samples, RATE)
        for _ in range(turns):
            page = _page(chromium, url)
            page.set_input_files("[data-drop] input[type=file]", clip)
            page.wait_for_selector("[data-clip]:not([hidden])")
            page.get_by_role("tab", name="Hidden states", exact=True).click()
            page.wait_for_selector("[data-shown='mel']")
            page.wait_for_selector("[data-lens-table] tr")
            steps = int(page.get_attribute("[data-depth]", "max"))
            took += [page.evaluate(_CHANGE) for _ in range(steps)]
            page.close()
    return Result(
        what="from a step of the playground's depth slider to the next tap drawn in Chromium, for "
        "10 s of sound and every tap of the embedded checkpoint: the slowest step",
        dtype=DTYPE,
        figures={"median": median(took), "longest": max(took), "steps": len(took)},
        ratio=max(took),
        target=Target(300, at_most=True, unit=" ms"),
        packages=("gradio",),
    )


def _caption(chromium: Any, url: str, clip: Path, said: str) -> tuple[float, float]:
    """Seconds from the click on Ask, and from choosing the file, with a page that is open."""
    page = _page(chromium, url)
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.wait_for_selector("#ask")
    page.get_by_role("tab", name="Audio", exact=True).click()
    begun = time.perf_counter()
    page.set_input_files("[data-drop] input[type=file]", clip)
    page.wait_for_selector("[data-clip]:not([hidden])")
    shown = time.perf_counter()
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.wait_for_timeout(300)  # a hand is no faster, and the page has come to rest
    # Timed in the page: what a driver takes to notice is none of a visitor's time.
    asked = page.evaluate(
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
    if text != said:
        raise RuntimeError(f"the page says {text!r}, and describe {said!r}")
    page.close()
    return asked, shown - begun + asked


def _page(chromium: Any, url: str) -> Any:
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    page.goto(url)
    page.wait_for_selector("[data-example]")
    return page


@contextmanager
def _browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        raise Missing("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def _served(settings: Settings, folder: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`qwen-audio play` as people start it; what it would write to a disk goes to `folder`."""
    command = [sys.executable, "-m", "qwen_audio.cli.main", "play", "--json"]
    given = environment(settings.threads) | {"TMPDIR": folder, "GRADIO_TEMP_DIR": folder}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=given) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process
        finally:
            process.terminate()


async def _all(url: str, clips: list[Any], seconds: float) -> list[Any]:
    from .playground_client import stay

    return await asyncio.gather(*(stay(url, clip, seconds) for clip in clips))


def _resident(process: subprocess.Popen[str]) -> int:
    pages = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _settled(process: subprocess.Popen[str]) -> int:
    """Once everybody who has left is forgotten."""
    time.sleep(5)
    return _resident(process)

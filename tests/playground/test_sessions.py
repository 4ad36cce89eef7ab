"""The playground with several visitors, another model, a keyboard alone, no network."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx2
import pytest
from benchmarks.playground_client import run_client
from benchmarks.playground_load import QUESTIONS, client_recordings

import qwen_audio as qa
from browser import (
    ROOT,
    PlaygroundProcess,
    ask,
    browser,
    choose_file,
    chromium_path,
    open_page,
    playground_process,
    select_tab,
)
from checkpoints import random_checkpoint
from commands import FAST_IMPORT, run_process

pytestmark = pytest.mark.slow

GUITAR = ROOT / "examples" / "guitar.flac"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def folder_for_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of temporary files of `playground`."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def playground(folder_for_files: Path) -> Iterator[PlaygroundProcess]:
    with playground_process(temporary=folder_for_files) as running:
        yield running


def test_concurrent_visitors_get_their_own_answers(playground: PlaygroundProcess) -> None:
    recordings = client_recordings(4, 1)
    # With equal answers, mixed up sessions would not be noticed.
    assert len({item.answers[QUESTIONS[0]] for item in recordings}) > 1

    async def run_all() -> list[Any]:
        return await asyncio.gather(*(run_client(playground.url, item, 4.0) for item in recordings))

    reports = asyncio.run(run_all())
    assert [report.problems + report.wrong_answers for report in reports] == [[]] * 4
    assert all(
        report.answers >= 2 and report.taps >= 4 and not report.rejected for report in reports
    )


SERVER = f"""
{FAST_IMPORT}
import socket
import sys
import threading
from qwen_audio.playground import launch
from qwen_audio.playground.limits import Limits

model = qa.load(sys.argv[1])
find_free_port = launch.find_free_port
with socket.create_server(("127.0.0.1", 0)) as taken:  # since its port was found to be free
    found = iter([launch._PORTS[0], taken.getsockname()[1]])
    launch.find_free_port = lambda host, port: next(found, None) or find_free_port(host, port)
    running = launch.launch_playground(model, sys.argv[2], limits=Limits(queue_size=1))
    assert next(found, None) is None
    print(running.url, flush=True)
sys.stdin.readline()
answered = threading.Event()
running.context.run_on_model_thread(answered.wait)  # a question that takes long
print("busy", flush=True)
sys.stdin.readline()
answered.set()
sys.stdin.readline()
"""
"""A playground that starts as another one does, and then is busy for as long as the test wants.

In a process of its own: Gradio leaves sockets open, and must see handlers without type checks.
"""


class BusyPlayground(NamedTuple):
    """Its address, its standard input and output, its model and collection."""

    url: str
    stdin: IO[str]
    stdout: IO[str]
    model: qa.AudioModel
    collection: qa.Collection


@pytest.fixture(scope="module")
def busy_playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyPlayground]:
    """It, with another model than the embedded one."""
    chromium_path()
    folder = tmp_path_factory.mktemp("busy")
    model = qa.load(
        random_checkpoint(folder / "other", mel_bins=128, width=32, encoder_layers=2, lm_layers=2)
    )
    collection = qa.Collection.create(folder / "music.lance", model)
    collection.index([ROOT / "examples"])
    command = [sys.executable, "-c", SERVER, str(folder / "other"), str(collection.path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            yield BusyPlayground(url, process.stdin, process.stdout, model, collection)
        finally:
            process.kill()


def test_a_port_taken_while_starting_is_not_used(busy_playground: BusyPlayground) -> None:
    assert httpx2.get(busy_playground.url).status_code == 200


def test_every_tab_works_with_another_model(chromium: Any, busy_playground: BusyPlayground) -> None:
    model, collection = busy_playground.model, busy_playground.collection
    with open_page(chromium, busy_playground.url) as page:
        choose_file(page, GUITAR)
        assert ask(page)
        select_tab(page, "Hidden states")
        page.wait_for_selector("[data-shown='mel']")
        for tap in (*map(str, model.taps[1:]), "lm.norm"):
            if tap != page.get_attribute("[data-depth]", "aria-valuetext"):
                page.locator("[data-depth]").press("ArrowRight")
            page.wait_for_selector(f"[data-shown='{tap}']")
        page.wait_for_selector("[data-lens-table] tr")
        select_tab(page, "Compare")
        page.locator("[data-example='speech.flac']").last.click()
        page.wait_for_selector("[data-pair]:not([hidden])")
        assert page.locator("[data-names] span").count() == len(model.taps)
        select_tab(page, "Search")
        page.click("[data-by-clip]")
        page.wait_for_selector("[data-results] li")
        found = page.locator("[data-results] b").all_inner_texts()
        assert found == [Path(hit.source).name for hit in collection.search(GUITAR)]


def test_a_full_queue_rejects_the_next_request(
    chromium: Any, busy_playground: BusyPlayground
) -> None:
    url, stdin, stdout, *_ = busy_playground
    with (
        open_page(chromium, url, own_window=True) as first,
        open_page(chromium, url, own_window=True) as second,
        open_page(chromium, url, own_window=True) as third,
    ):
        for page in (first, second, third):
            choose_file(page, GUITAR)
            select_tab(page, "Ask")
        stdin.write("\n")
        stdin.flush()
        assert stdout.readline().strip() == "busy"
        first.click("#ask")  # is answered, once it is its turn
        first.wait_for_selector(".pg-waiting")
        second.click("#ask")  # waits in the queue, which is full now
        second.wait_for_timeout(2000)
        third.click("#ask")
        third.wait_for_function(
            "() => document.querySelector('#ask-status').innerText.startsWith('Too many')"
        )
        stdin.write("\n")
        stdin.flush()
        for page in (first, second):
            page.wait_for_selector(".pg-answer dl")
        assert ask(third)  # and may ask again


def test_a_caption_and_a_tap_by_keyboard(chromium: Any, playground: PlaygroundProcess) -> None:
    with open_page(chromium, playground.url) as page:

        def reach(selector: str, key: str = "Tab") -> None:
            """Press a key until that has the focus, and shows it."""
            for _ in range(60):
                page.keyboard.press(key)
                focused, outline = page.evaluate(
                    """(selector) => { const it = document.activeElement;
                       return [it.matches(selector), getComputedStyle(it).outlineStyle]; }""",
                    selector,
                )
                if focused:
                    assert outline == "solid", f"{selector}: the focus can't be seen"
                    return
            raise AssertionError(f"{selector} can't be reached")

        reach("[data-example='guitar.flac']")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-clip]:not([hidden])")
        names = page.get_by_role("tab").all_inner_texts()
        reach(f"[role=tab]:nth-of-type({names.index('Ask') + 1})", "Shift+Tab")
        page.keyboard.press("Enter")
        reach("#ask")
        page.keyboard.press("Enter")
        page.wait_for_selector(".pg-answer dl")
        answer = page.locator(".pg-answer .pg-text").first.inner_text()
        assert answer == qa.load().describe(GUITAR)
        reach(f"[role=tab]:nth-of-type({names.index('Hidden states') + 1})", "Shift+Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-shown='mel']")
        reach("[data-depth]")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("[data-shown='encoder.0']")


def test_no_files_are_left(
    chromium: Any, playground: PlaygroundProcess, folder_for_files: Path
) -> None:
    with open_page(chromium, playground.url) as page:
        page.click("[data-record]")
        page.wait_for_timeout(1000)
        page.click("[data-record]")
        page.wait_for_function(
            "() => document.querySelector('[data-clip] [data-name]').textContent.endsWith('.webm')"
        )
        choose_file(page, GUITAR)
        page.locator("details:visible summary").click()
        for suffix in ("npz", "png"):
            with page.expect_download():
                page.locator(f"details:visible [data-format={suffix}]").click()
        assert not [path for path in folder_for_files.rglob("*") if path.is_file()]


def test_share_without_a_connection_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium_path()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a proxy that doesn't exist
    done = run_process("play", "--share")
    assert done.returncode == 1
    assert not done.stdout
    assert "no public address could be created" in done.stderr.splitlines()[-1]

"""The playground with another model, a public address, a full queue, no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx2
import pytest

import qwen_audio as qa
from browser import (
    ROOT,
    ask,
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


SERVER = f"""
{FAST_IMPORT}
import sys
import threading
from gradio import networking
from qwen_audio.playground import launch
from qwen_audio.playground.limits import Limits

networking.setup_tunnel = lambda **options: "http://shared.example"  # of Gradio's servers
running = launch.launch_playground(qa.load(), share=True, limits=Limits(queue_size=1))
assert running.share_url == "https://shared.example"
print(running.url, flush=True)
sys.stdin.readline()
answered = threading.Event()
running.context.run_on_model_thread(answered.wait)  # a question that takes long
print("busy", flush=True)
sys.stdin.readline()
answered.set()
sys.stdin.readline()
"""
"""A playground that is shared, and then is busy for as long as the test wants.

In a process of its own: Gradio leaves sockets open, and must see handlers without type checks.
"""


class BusyPlayground(NamedTuple):
    """Its address, standard input and output."""

    url: str
    stdin: IO[str]
    stdout: IO[str]


@pytest.fixture(scope="module")
def busy_playground() -> Iterator[BusyPlayground]:
    chromium_path()
    command = [sys.executable, "-c", SERVER]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            yield BusyPlayground(url, process.stdin, process.stdout)
        finally:
            process.kill()


def test_a_shared_page_is_complete_and_private_to_its_host(
    busy_playground: BusyPlayground,
) -> None:
    shared = {"host": "shared.example", "x-forwarded-host": "evil.example"}
    page = httpx2.get(busy_playground.url, headers=shared)
    assert page.status_code == 200
    assert '"root":"https://shared.example"' in page.text
    assert "amazonaws" not in page.text  # Gradio's own page for it loads its scripts from there
    assert "evil.example" not in page.text
    for origin, status in (("https", 400), ("http", 403)):
        headers = {"host": "shared.example", "origin": f"{origin}://shared.example"}
        url = f"{busy_playground.url}gradio_api/cancel"
        assert httpx2.post(url, headers=headers, json={}).status_code == status
    assert httpx2.get(busy_playground.url, headers={"host": "evil.example"}).status_code == 403


def test_every_tab_works_with_another_model(chromium: Any, tmp_path: Path) -> None:
    folder = random_checkpoint(
        tmp_path / "other", mel_bins=128, width=32, encoder_layers=2, lm_layers=2
    )
    model = qa.load(folder)
    collection = qa.Collection.create(tmp_path / "music.lance", model)
    collection.index([ROOT / "examples"])
    with (
        playground_process("--model", folder, "--collection", collection.path) as playground,
        open_page(chromium, playground.url) as page,
    ):
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
        assert found == [
            Path(hit.source).name for hit in collection.search(GUITAR, include_self=True)
        ]


def test_a_full_queue_rejects_the_next_request(
    chromium: Any, busy_playground: BusyPlayground
) -> None:
    url, stdin, stdout = busy_playground
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
        select_tab(third, "Hidden states")
        third.locator(".pg-status:visible", has_text="Too many requests").first.wait_for()
        stdin.write("\n")
        stdin.flush()
        for page in (first, second):
            page.wait_for_selector(".pg-answer dl")
        assert ask(third)  # and may ask again
        with third.expect_request(re.compile("queue/join")):  # which may be too many at once, again
            select_tab(third, "Hidden states")


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

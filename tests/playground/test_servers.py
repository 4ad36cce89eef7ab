"""The playground with another model, a public address, a full queue, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

import qwen_audio as qa
from browser import (
    ROOT,
    ask,
    choose_file,
    chromium_path,
    open_page,
    select_tab,
)
from checkpoints import random_checkpoint
from commands import CommandResult
from forked import ForkedProcess

pytestmark = pytest.mark.slow

GUITAR = ROOT / "examples" / "guitar.flac"


SERVERS = """
import json, os, sys, threading
import qwen_audio as qa
from commands import run
from gradio import networking
from qwen_audio.playground.launch import launch_playground
from qwen_audio.playground.limits import Limits

os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"  # a proxy that doesn't exist
print(json.dumps(run("play", "--share")), flush=True)
other = launch_playground(qa.load(sys.argv[1]), sys.argv[2])
networking.setup_tunnel = lambda **options: "http://shared.example"  # of Gradio's servers
shared = launch_playground(qa.load(), share=True, limits=Limits(queue_size=1))
assert shared.share_url == "https://shared.example"
print(json.dumps([other.url, shared.url]), flush=True)
sys.stdin.readline()
answered = threading.Event()
shared.context.run_on_model_thread(answered.wait)  # a question that takes long
print("busy", flush=True)
sys.stdin.readline()
answered.set()
sys.stdin.readline()
"""
"""Playgrounds: one that can't be shared, one of another model with a collection, and one that is
shared, and then is busy for as long as the test wants.

In a process of their own: Gradio leaves sockets open, and must see handlers without type checks.
"""


class Servers(NamedTuple):
    """The command that failed, the addresses of the others, and their process."""

    unshared: CommandResult
    other: str
    shared: str
    process: ForkedProcess


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> qa.Collection:
    """The examples, indexed by a random checkpoint."""
    folder = tmp_path_factory.mktemp("servers")
    random_checkpoint(folder / "other", mel_bins=128, width=32, encoder_layers=2, lm_layers=2)
    made = qa.Collection.create(folder / "music.lance", qa.load(folder / "other"))
    made.index([ROOT / "examples"])
    return made


@pytest.fixture(scope="module")
def servers(collection: qa.Collection) -> Iterator[Servers]:
    chromium_path()
    with ForkedProcess(SERVERS, collection.path.with_name("other"), collection.path) as process:
        lines = process.stdout.readline(), process.stdout.readline()
        assert all(lines), process.new_errors()
        failed, (other, shared) = map(json.loads, lines)
        yield Servers(CommandResult(*failed), other, shared, process)


def test_share_without_a_connection_is_an_error(servers: Servers) -> None:
    done = servers.unshared
    assert done.returncode == 1
    assert not done.stdout
    assert "no public address could be created" in done.stderr.splitlines()[-1]


def test_a_shared_page_is_complete_and_private_to_its_host(servers: Servers) -> None:
    shared = {"host": "shared.example", "x-forwarded-host": "evil.example"}
    page = httpx2.get(servers.shared, headers=shared)
    assert page.status_code == 200
    assert '"root":"https://shared.example"' in page.text
    assert "amazonaws" not in page.text  # Gradio's own page for it loads its scripts from there
    assert "evil.example" not in page.text
    for origin, status in (("https", 400), ("http", 403)):
        headers = {"host": "shared.example", "origin": f"{origin}://shared.example"}
        url = f"{servers.shared}gradio_api/cancel"
        assert httpx2.post(url, headers=headers, json={}).status_code == status
    assert httpx2.get(servers.shared, headers={"host": "evil.example"}).status_code == 403


def test_every_tab_works_with_another_model(
    chromium: Any, servers: Servers, collection: qa.Collection
) -> None:
    with open_page(chromium, servers.other) as page:
        choose_file(page, GUITAR)
        assert ask(page)
        select_tab(page, "Hidden states")
        page.wait_for_selector("[data-shown='mel']")
        for tap in (*map(str, collection.model.taps[1:]), "lm.norm"):
            if tap != page.get_attribute("[data-depth]", "aria-valuetext"):
                page.locator("[data-depth]").press("ArrowRight")
            page.wait_for_selector(f"[data-shown='{tap}']")
        page.wait_for_selector(".pg-lens-cell")
        select_tab(page, "Compare")
        panel = page.locator("[data-panel=compare]")
        panel.locator("[data-example='speech.flac']").click()
        panel.locator("[data-pair]:not([hidden])").wait_for()
        assert panel.locator("[data-names] span").count() == len(collection.model.taps)
        select_tab(page, "Collection")
        page.click("[data-by-clip]")
        page.wait_for_selector("[data-panel=collection][data-found]")
        page.wait_for_selector("[data-rows] small")
        found = page.locator("[data-rows] b").all_inner_texts()
        assert found == [hit.name for hit in collection.search(GUITAR)]


def test_a_full_queue_rejects_the_next_request(chromium: Any, servers: Servers) -> None:
    url, stdin, stdout = servers.shared, servers.process.stdin, servers.process.stdout
    with (
        open_page(chromium, url) as first,
        open_page(chromium, url, own_window=True) as second,
        open_page(chromium, url, own_window=True) as third,
    ):
        for page in (first, second, third):
            choose_file(page, GUITAR)
            select_tab(page, "Ask")
            page.wait_for_selector("[data-questions] button")
        stdin.write("\n")
        stdin.flush()
        assert stdout.readline().strip() == "busy"
        first.click("#ask")  # is answered, once it is its turn
        first.wait_for_selector(".pg-waiting")
        with second.expect_response(re.compile("queue/join")):
            second.click("#ask")  # waits in the queue, which is full now
        second.locator("#ask-status", has_text="Waiting: 1 request is before yours.").wait_for()
        third.click("#ask")
        third.wait_for_function(
            "() => document.querySelector('#ask-status').innerText.startsWith('Too many')"
        )
        select_tab(third, "Hidden states")
        third.locator(".pg-status:visible", has_text="Too many requests").first.wait_for()
        stdin.write("\n")
        stdin.flush()
        for page in (first, second):
            page.wait_for_selector(".pg-answer summary")
        assert ask(third)  # and may ask again
        with third.expect_request(re.compile("queue/join")):  # which may be too many at once, again
            select_tab(third, "Hidden states")

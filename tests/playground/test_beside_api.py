"""`qwen-audio serve --playground`: the page and the API in one server, with one key."""

from __future__ import annotations

import base64
import json
import threading

import httpx2
import pytest

import qwen_audio as qa
from browser import ROOT, ask, browser, choose_file, chromium_path, open_page, select_tab
from forked import ForkedProcess

pytestmark = pytest.mark.slow

GUITAR = ROOT / "examples" / "guitar.flac"
SERVE = """
import os, sys
from qwen_audio.cli.main import main

os.environ["QWEN_AUDIO_API_KEY"] = "a-key"
sys.exit(main(["serve", "--playground", "--json", "--dtype", "float32"]))
"""


def test_page_and_api_at_the_same_time() -> None:
    """A visitor's answers and taps, and a program's answers meanwhile, are those of the model."""
    chromium_path()
    expected = str(qa.load(dtype="float32").describe(GUITAR))
    audio = {"data": base64.b64encode(GUITAR.read_bytes()).decode()}
    content = [{"type": "input_audio", "input_audio": audio}]
    body = {"model": "embedded", "messages": [{"role": "user", "content": content}]}
    bearer = {"Authorization": "Bearer a-key"}
    with ForkedProcess(SERVE) as process:
        line = process.stdout.readline()
        assert line, process.new_errors()
        url = json.loads(line)["url"]
        refused = httpx2.get(url)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Basic realm="qwen-audio"'
        assert httpx2.get(url, auth=("anyone", "wrong")).status_code == 401
        assert httpx2.get(url, headers=bearer).status_code == 401
        assert httpx2.get(f"{url}v1/models", auth=("anyone", "a-key")).status_code == 401
        assert httpx2.get(f"{url}v1/models", headers=bearer).status_code == 200
        assert (
            "'unsafe-inline'"
            in httpx2.get(url, auth=("", "a-key")).headers["content-security-policy"]
        )
        answers: list[str] = []
        done = threading.Event()

        def describe() -> None:
            while not done.is_set():
                response = httpx2.post(
                    f"{url}v1/chat/completions", json=body, headers=bearer, timeout=60
                )
                answers.append(response.json()["choices"][0]["message"]["content"])

        programs = [threading.Thread(target=describe) for _ in range(2)]
        with browser() as chromium:
            context = chromium.browser.new_context(
                http_credentials={"username": "anyone", "password": "a-key"}
            )
            with open_page(context, url) as page:
                for program in programs:
                    program.start()
                choose_file(page, GUITAR)
                assert ask(page) == expected
                select_tab(page, "Hidden states")
                page.wait_for_selector(".pg-lens-cell")
                done.set()
            context.close()
        for program in programs:
            program.join()
        assert answers
        assert set(answers) == {expected}

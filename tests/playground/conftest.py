"""Fixtures of the tests of the playground: one server for all, a browser for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from browser import (
    READY,
    ROOT,
    TIMEOUT_MS,
    PlaygroundProcess,
    browser,
    checked,
    playground_process,
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium. Not for all modules: while it is open, no test can run an event loop."""
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def model() -> qa.AudioModel:
    return qa.load()


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory, model: qa.AudioModel) -> qa.Collection:
    """The examples as a collection, whose columns and values try to be code."""
    path = tmp_path_factory.mktemp("collections") / "music.lance"
    collection = qa.Collection.create(path, model, describe=True)
    files = sorted((ROOT / "examples").glob("*.flac"))
    columns = ("__proto__", "<!--<script>", "12")
    collection.index(
        [
            {"source": str(file), **dict.fromkeys(columns, f"<b>{number}</b>${{x}}")}
            for number, file in enumerate(files)
        ]
    )
    return collection


@pytest.fixture(scope="session")
def folder_for_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of temporary files of `playground`."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="session")
def playground(music: qa.Collection, folder_for_files: Path) -> Iterator[PlaygroundProcess]:
    with playground_process(folder_for_files, "--collection", music.path) as running:
        yield running


@pytest.fixture(scope="module")
def tab(chromium: Any, playground: PlaygroundProcess) -> Iterator[Any]:
    """A tab of the window: loading a page again takes half as long as opening one."""
    opened = chromium.new_page()
    opened.set_default_timeout(TIMEOUT_MS)
    yield opened
    opened.close()


@pytest.fixture
def page(tab: Any, playground: PlaygroundProcess) -> Iterator[Any]:
    """The page, loaded for this test: a session of its own."""
    tab.bring_to_front()
    tab.goto("about:blank")  # breaks off requests of the page before
    tab.goto(playground.url, wait_until="commit")
    with checked(tab, playground.url):
        tab.wait_for_selector(READY)
        yield tab

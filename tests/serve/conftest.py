"""Fixtures of the tests of servers."""

from __future__ import annotations

import pytest

import qwen_audio as qa


@pytest.fixture(scope="session")
def model() -> qa.AudioModel:
    """The embedded model; used by tests only while its servers have nothing to do."""
    return qa.load(dtype="float32")

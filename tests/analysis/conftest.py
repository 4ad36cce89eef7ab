"""Models that the tests of analysis share."""

from __future__ import annotations

import pytest

import qwen_audio as qa
from checkpoints import EMBEDDED, random_checkpoint
from reference import Reference


@pytest.fixture(scope="session", params=["random", "embedded"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[qa.AudioModel, Reference]:
    """A model in float32, and transformers' model of the same checkpoint."""
    folder = EMBEDDED
    if request.param == "random":
        folder = random_checkpoint(tmp_path_factory.mktemp("pair"), seed=5)
    return qa.load(folder, dtype="float32", device="cpu"), Reference(folder)


@pytest.fixture(scope="session")
def embedded() -> qa.AudioModel:
    """The embedded checkpoint's model."""
    return qa.load()

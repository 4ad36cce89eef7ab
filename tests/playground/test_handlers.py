"""All handlers of the page: what they answer to values that the page doesn't send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from recordings import write_wav

pytestmark = pytest.mark.slow

ODD_VALUES: list[Any] = [
    *(None, True, -1, 2**53, 1.5, "", "mel", "lm." + "9" * 5000, [], {"a": 1}, [None, "x"]),
    *("guitar.flac/../speech.flac", [1e300, -1], "0" * 16 + "-0"),
]
NAMES = (
    *("window", "part", "ticket", "example", "row", "tap", "view", "format", "version", "question"),
    *("choices", "answers", "answer", "edit", "span", "words", "metric", "align", "whole", "rows"),
    *("conversation", "text", "filter", "column", "method", "indices", "order", "dark", "clip"),
)


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> AppContext:
    """Of a playground with a collection and answers of four tokens."""
    folder = tmp_path_factory.mktemp("handlers")
    noise = np.random.default_rng(0)
    for number in range(3):
        samples = 0.1 * noise.standard_normal((1, 3200)).astype(np.float32)
        (folder / f"{number}.wav").write_bytes(write_wav(samples, 16_000))
    collection = qa.Collection.create(folder / "three.lance", qa.load(), tap="mel")
    collection.index([str(path) for path in sorted(Path(folder).glob("*.wav"))])
    return AppContext(collection.model, Limits(max_new_tokens=4), collection)


@pytest.mark.parametrize("value", ODD_VALUES)
def test_no_value_is_an_internal_error(context: AppContext, value: Any) -> None:
    from qwen_audio.playground.app import handlers  # imports Gradio

    random = Random(repr(value))
    for channel, (handler, _) in handlers(context).items():
        session = context.session(Page())
        session.open(Clip(qa.Waveform(np.full(3200, 0.1, np.float32), "a.wav")))
        known = {"question": "Is this music?", "tap": "mel", "n": 1}
        some = random.sample(NAMES, 2)  # all of them take minutes
        for data in (
            known | dict.fromkeys(some, value),
            {**dict.fromkeys(NAMES, value), "n": value},
        ):
            answer = handler(data, Page())
            parts = list(answer) if isinstance(answer, Iterator) else [answer]
            for part in parts:
                assert "internal error" not in part.get("problem", ""), (channel, data)
                assert part["n"] is None or type(part["n"]) is int

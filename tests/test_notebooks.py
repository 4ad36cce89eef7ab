"""What notebooks show of results: HTML with their facts, in which users' texts are text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from recordings import sound

NASTY = "<script>alert(1)</script>&.wav"


class Elements(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebook") / NASTY.replace("/", "∕")
    soundfile.write(path, sound(1.5, 16_000)[0], 16_000)
    return path


@pytest.mark.slow
def test_every_result_has_one(clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    model = qa.load(checkpoint)
    collection = qa.Collection.create(tmp_path / "c.lance", model)
    collection.index([clip])
    results: dict[str, Any] = {
        "lm.norm": model,
        "max over audio": model.encode(clip, pooling="max"),
        "and 5 more rows": model.encode(clip, pooling="none")[:13],
        "audio 37": model.activations(clip, taps=["lm.1"])["lm.1"],
        "prompt tokens": model.describe(clip, max_new_tokens=2),
        "windows": collection,
    }
    for text, result in results.items():
        page = Elements(result._repr_html_())
        assert set(page.elements) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
        assert text in " ".join(page.texts)
    assert str(clip) in " ".join(Elements(results["audio 37"]._repr_html_()).texts)
    pictures = (
        model.view(clip),
        model.lens(clip, taps=["lm.0", "lm.1"]),
        model.compare(clip, clip, taps=["mel", "lm.1"]),
        model.layer_similarity([clip], taps=["mel", "lm.1"]),
    )
    for picture in pictures:
        page = Elements(picture._repr_html_())
        assert page.elements == ["pre", "img"]
        assert type(picture).__name__ in page.texts[0]


def test_a_picture_without_matplotlib_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = np.zeros((1, 2), np.float32)
    compared = qa.Comparison((NASTY,), zeros[0, :1], zeros, 1.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Elements(compared._repr_html_()).elements == ["pre"]


def test_dir_shows_public_names_only() -> None:
    assert dir(qa) == sorted(qa.__all__)

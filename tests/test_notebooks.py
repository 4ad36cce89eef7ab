"""What notebooks show of results: HTML with their facts, in which users' texts are text."""

from __future__ import annotations

import ast
import json
import pydoc
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from qwen_audio.inference.progress_bars import download_bar
from recordings import sound

TOUR = Path(__file__).parent.parent / "examples" / "tour.ipynb"
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
        "1 window; scores: cosine": collection.search(clip, include_self=True),
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


def test_help_fits_on_a_few_screens() -> None:
    """It has every public name, and no methods of classes."""
    text = pydoc.render_doc(qa, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    assert len(text.splitlines()) < 80
    for name in set(dir(qa)) - {"__version__"}:
        assert re.search(rf"\b{name}\b", str(qa.__doc__)), name


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells a notebook's process from others."""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def test_bars_are_shown_in_notebooks_only(
    clip: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], request: Any
) -> None:
    model = qa.load(checkpoint)
    clips = [clip, clip]
    model.encode(clips, tap="mel")
    list(model.encode_each(clips, tap="mel"))
    assert capsys.readouterr().err == ""
    model.encode(clips, tap="mel", progress=True)
    assert re.search(r"encoding: 100%.* 2/2 .* s of audio", capsys.readouterr().err)
    list(model.encode_each(iter(clips), tap="mel", progress=True))
    assert "encoding: 2 recordings" in capsys.readouterr().err
    wrong: Any = "yes"
    with pytest.raises(qa.OptionError, match="progress='yes': use True or False"):
        model.encode_each(clips, tap="mel", progress=wrong)
    request.getfixturevalue("notebook")
    model.encode(clip, tap="mel")
    list(model.encode_each(clips, tap="mel"))  # for those who add a bar of their own
    assert capsys.readouterr().err == ""
    model.encode(clips, tap="mel")
    assert " 2/2 " in capsys.readouterr().err


@pytest.mark.usefixtures("notebook")
def test_bars_of_texts_and_hidden_states(
    clip: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = qa.load(checkpoint)
    clips = [clip, clip]

    def bars(**options: Any) -> tuple[str, str]:
        model.activations(clips, taps=["mel"], **options)
        states = capsys.readouterr().err
        model.describe(clips, max_new_tokens=1, **options)
        return states, capsys.readouterr().err

    states, texts = bars()
    assert re.search(r"encoding: 100%.* 2/2 ", states)
    assert re.search(r"describing: 100%.* 2/2 .* recordings/s", texts)
    assert bars(progress=False) == ("", "")
    model.activations(clip, taps=["mel"])
    model.describe(clip, max_new_tokens=1)
    model.compare(clip, clip, taps=["mel"])  # two recordings, but one after another
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_bars_of_collections_probes_and_downloads(
    clip: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    notebook: None,
) -> None:
    model = qa.load(checkpoint)
    qa.Collection.create(tmp_path / "c.lance", model, tap="mel").index([clip])
    assert "indexing: 100%" in capsys.readouterr().err
    shutil.copy(clip, tmp_path / "other.wav")
    waveform = qa.load_waveform(clip)
    for k in range(4):
        soundfile.write(tmp_path / f"{k}.wav", waveform.samples[k * 5000 :][:5000], 16_000)
    rows = [{"source": tmp_path / f"{k}.wav", "kind": "ab"[k % 2]} for k in range(4)]
    qa.probe(rows, model, taps=["mel"], folds=2)
    shown = capsys.readouterr().err
    assert "encoding: 100%" in shown
    assert "probing: 100%" in shown
    report = download_bar(None)
    assert report is not None
    for _ in range(2):  # one after another
        report(10**6, 2 * 10**6)
        report(2 * 10**6, 2 * 10**6)
    assert capsys.readouterr().err.count("fetching weights: 100%") == 2
    assert download_bar(False) is None


def cells() -> list[dict[str, Any]]:
    return list(json.loads(TOUR.read_text(encoding="utf-8"))["cells"])


@pytest.mark.slow
def test_the_tour_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells, as a notebook runs them: the last expression of each is shown."""
    monkeypatch.chdir(TOUR.parent)
    names: dict[str, Any] = {}
    for cell in cells():
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "tour.ipynb", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "tour.ipynb", "eval"), names)
            assert value is not None
            if not isinstance(value, qa.View | qa.LogitLens | qa.Comparison):  # drawn elsewhere
                getattr(value, "_repr_html_", value.__repr__)()
    shutil.rmtree(names["folder"])


def test_the_tour_is_stored_with_its_outputs() -> None:
    outputs = [output for cell in cells() for output in cell.get("outputs", ())]
    assert len(outputs) >= 12
    assert TOUR.stat().st_size < 300_000
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    assert sum("data:image/png" in page for page in pages) == 3
    for output in outputs:
        assert output["output_type"] in ("execute_result", "stream")
        assert output.get("name") != "stderr"
        assert "/tmp/tmp" not in json.dumps(output)


def test_dir_shows_public_names_only() -> None:
    assert [name for name in dir(qa) if name.startswith("_")] == ["__version__"]
    assert "importlib" not in dir(qa)

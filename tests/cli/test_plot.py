"""lens, plot and map on the command line; a collection laid out; what docs/look.md says."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from commands import run
from qwen_audio.audio.opus import encode_opus
from qwen_audio.cli.main import main
from recordings import sound

ROOT = Path(__file__).parents[2]
RATE = 16_000


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        soundfile.write(tmp_path / f"{seed}.wav", sound(2.0, RATE, seed=seed)[0], RATE)
    return tmp_path


def test_lens_prints_words_and_draws(clips: Path) -> None:
    done = run("lens", "0.wav", "--tokens", "piano,qzwv", "--nearest", "-o", "a.png")
    assert done.returncode == 0
    for part in (
        "0.wav: what would be said",
        "lm.0",
        "0.0–0.1 s",
        "after reading",
        "piano: likeliest",
    ):
        assert part in done.stdout
    assert (clips / "a.png").read_bytes().startswith(b"\x89PNG")
    model = qa.load()
    said = model.describe("0.wav", max_new_tokens=1).strip()
    data = json.loads(run("lens", "0.wav", "--span", "last", "--taps", "lm.-1", "--json").stdout)
    assert data["taps"] == [str(model.taps[-2])]
    (row,) = data["rows"]
    assert row["word_1"].strip() == said
    assert run("lens", "0.wav", "1.wav", "-o", ".", "--panels", "words").returncode == 0
    assert {path.name for path in clips.glob("*.lens.png")} == {"0.lens.png", "1.lens.png"}


def test_plot_draws_by_its_options(clips: Path) -> None:
    done = run("plot", "0.wav", "gone.wav", "1.wav", "--panels", "waveform,novelty")
    assert done.returncode == 1
    assert "gone.wav" in done.stderr
    assert done.stderr.endswith("1 of 3 files failed\n")
    for number in range(2):
        assert f"{number}.audio_tower.png: audio_tower, sections begin at (s): " in done.stdout
        assert (clips / f"{number}.audio_tower.png").is_file()
    data = json.loads(
        run("plot", "0.wav", "--tap", "lm.1", "-o", "x.npz", "--kernel", "1", "--json").stdout
    )
    assert data["tap"] == "lm.1"
    assert data["kernel_seconds"] == 1
    assert np.load("x.npz")["rows"].shape == (50, qa.load().dimensions.lm_width)
    assert run("plot", "0.wav", "--html", "--panels", "norms", "--depth").returncode == 0
    assert "Euclidean norm" in (clips / "0.audio_tower.html").read_text(encoding="utf-8")
    layers = run("plot", "0.wav", "1.wav", "--layers", "-o", "layers.csv")
    assert "taps over 2 recordings" in layers.stdout
    assert (clips / "layers.csv").read_text(encoding="utf-8").startswith("tap,mel,encoder.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plot", "0.wav", "--panels", "spectrum"), "a View has waveform"),
        (("plot", "0.wav", "--tap", "encoder.99"), "encoder.99"),
        (("plot", "0.wav", "--html", "-o", "a.png"), "a page's name ends in .html"),
        (("plot", "0.wav", "1.wav", "-o", "a.png"), "name a folder that is there"),
        (("plot", "0.wav", "x/0.wav"), "2 files called 0"),
        (("plot", "0.wav", "-o", "a.npz", "--theme", "dark"), "do nothing for a.npz"),
        (("plot", "0.wav", "-o", "a.gif"), "the suffix decides the format"),
        (("plot", "0.wav", "--layers", "--tap", "mel"), "--tap does nothing with --layers"),
        (("plot", "0.wav", "--prompt", "What?"), "only the language model"),
        (("plot", "0.wav", "--kernel", "9"), "kernel_seconds=9"),
        (("lens", "0.wav", "--theme", "dark"), "are for pictures"),
        (("lens", "0.wav", "--tokens", "piano,"), "is no word"),
        (("lens", "0.wav", "--taps", "mel"), "mel has no logits"),
        (("map", "none.lance"), "no such collection"),
        (("map", "none.lance", "-o", "a.png"), "use .html"),
    ],
)
def test_mistakes_are_one_line(clips: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(clips.glob("*.png"))


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> qa.Collection:
    """Twenty windows of two recordings, with columns of a manifest."""
    folder = tmp_path_factory.mktemp("map")
    rows: list[Any] = []
    for seed, kind in enumerate(("<b>bright</b>", "dark")):
        path = folder / f"{kind[:1].replace('<', 'b')}.wav"
        soundfile.write(path, sound(10.0, RATE, seed=seed)[0], RATE)
        rows.append({"source": str(path), "kind": kind, "stars": 3 + seed, "same": "x"})
    made = qa.Collection.create(folder / "m.lance", qa.load(), window_seconds=1.0)
    made.index(rows)
    return made


def test_a_collection_is_laid_out(collection: qa.Collection, tmp_path: Path) -> None:
    layout = collection.map(method="pca")
    assert layout.points.shape == (20, 2)
    assert {"recording", "kind", "stars", "start_seconds"} <= set(layout.columns)
    assert not {"vector", "same", "source", "content_hash", "format"} & set(layout.columns)
    vectors = np.array(
        [row["vector"] for row in collection.table.to_arrow().sort_by("source").to_pylist()]
    )
    # Distances in the map are at most those of the vectors, as those of a projection are.
    far = np.linalg.norm(layout.points[0] - layout.points[-1])
    assert 0 < far <= np.linalg.norm(vectors[:, None] - vectors[None], axis=-1).max() + 1e-3
    page = layout.write_html(tmp_path / "m.html", colour="kind")
    text = page.path.read_text(encoding="utf-8")
    assert page.audio == "embedded"
    assert not page.failures
    assert text.count("data:audio/ogg;base64,") >= 20
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", text)
    assert '<option value="kind" selected>' in text
    assert '<b>bright</b>"' not in text
    data = json.loads(text.split("const data = ")[1].split(";\nconst palette")[0])
    assert data["columns"]["kind"]["categories"] == ["&lt;b&gt;bright&lt;/b&gt;", "dark"]
    assert data["columns"]["start_seconds"]["label"] == "start_seconds (s)"
    content = base64.b64decode(data["audio_urls"][3].split(",")[1])
    with av.open(io.BytesIO(content)) as heard:
        assert heard.streams.audio[0].codec_context.name in ("opus", "libopus")
    linked, how, _ = layout.to_html(audio="link", theme="dark")
    assert how == "linked"
    assert "b.wav#t=3,4" in linked
    assert "data:audio" not in linked.split("const data = ")[1].split("\n")[0]
    assert layout.to_html(audio="none")[1] == "none"


def test_umap_gives_the_same_map_for_the_same_seed(collection: qa.Collection) -> None:
    one, other = collection.map(seed=3), collection.map(seed=3)
    assert one.method == "umap"
    np.testing.assert_array_equal(one.points, other.points)
    assert np.isfinite(one.points).all()
    kinds = np.array(one.values("kind"))
    centres = [one.points[kinds == kind].mean(0) for kind in set(kinds.tolist())]
    assert np.linalg.norm(centres[0] - centres[1]) > 0


def test_maps_of_what_makes_no_sense(
    collection: qa.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "start_seconds < 3"
    assert collection.map(where=few).method == "pca"
    with pytest.raises(qa.OptionError, match="it takes 16 or more; use 'pca'"):
        collection.map(method="umap", where=few)
    with pytest.raises(qa.OptionError, match="use 'umap' or 'pca'"):
        collection.map(method="tsne")
    with pytest.raises(qa.OptionError, match="seed=-1"):
        collection.map(seed=-1)
    with pytest.raises(qa.CollectionError, match="no rows that fit"):
        collection.map(where="start_seconds > 99")
    with pytest.raises(qa.OptionError, match="can't be used"):
        collection.map(where="nonsense = 1")
    layout = collection.map(method="pca")
    with pytest.raises(qa.OptionError, match="can't be coloured by"):
        layout.write_html(tmp_path / "m.html", colour="same")
    with pytest.raises(qa.OptionError, match="audio='loud'"):
        layout.write_html(tmp_path / "m.html", audio="loud")
    monkeypatch.setattr("qwen_audio.collection.projection.MAX_EMBEDDED_BYTES", 1000)
    with pytest.raises(qa.OptionError, match="use 'link'"):
        layout.write_html(tmp_path / "m.html", audio="embed")
    assert layout.to_html()[1] == "linked"
    monkeypatch.setattr("qwen_audio.collection.projection.MAX_ROWS", 10)
    with pytest.raises(qa.OptionError, match="too many for one page"):
        collection.map()
    assert not list(tmp_path.iterdir())


def test_a_recording_that_is_gone_is_named(tmp_path: Path) -> None:
    for seed in range(2):
        soundfile.write(tmp_path / f"{seed}.wav", sound(2.0, RATE, seed=seed)[0], RATE)
    into = tmp_path / "m.lance"
    assert run("index", tmp_path / "0.wav", tmp_path / "1.wav", "--into", into).returncode == 0
    (tmp_path / "0.wav").unlink()
    done = run("map", into, "-o", tmp_path / "m.html", "--json")
    assert done.returncode == 1
    assert "0.wav" in done.stderr
    assert json.loads(done.stdout)["method"] == "pca"
    assert (tmp_path / "m.html").is_file()


def test_opus_is_what_was_heard() -> None:
    clip = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    content = encode_opus(clip)
    assert len(content) < 8_000
    heard = qa.load_waveform(content)
    assert heard.duration_seconds == pytest.approx(1, abs=0.03)
    spectrum = np.abs(np.fft.rfft(heard.samples[:RATE]))
    assert abs(np.argmax(spectrum) * RATE / len(heard.samples[:RATE]) - 440) < 5


def test_the_page_about_looking_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "look.md").read_text(encoding="utf-8")
    lines = [line[2:] for line in page.splitlines() if line.startswith("$ qwen-audio")]
    assert len(lines) >= 6
    for line in lines:
        _, *arguments = shlex.split(line, comments=True)
        given = [
            p for a in arguments for p in (sorted(map(str, Path().glob(a))) if "*" in a else [a])
        ]
        assert main(given) == 0, line
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(block, "look.md", "exec"), {})

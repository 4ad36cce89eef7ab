"""File names of every kind, through every command: opened again from each result, one line each."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from commands import CommandResult, run
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_listing import find_sources
from qwen_audio.paths import file_name, path_from_text, path_to_text, printable
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.tabs.collection import CollectionTab
from recordings import sound

NAMES = [
    *(
        b"caf\xe9.wav",
        b"\xff\xfe",
        b"new\nline.wav",
        b"return\r.wav",
        b"tab\t.wav",
        b"\x1b[31m.wav",
    ),
    *(b"qu'ote\".wav", b";--.wav", b"100%.wav", b"caf%E9.wav", b"%41.wav", b"back\\slash.wav"),
    *(b"-dash.wav", b" .wav", b"a  b.wav", b"a#1.wav", b"take#2", b"[1].wav", b"*.wav", b"?q.wav"),
    *(b"{x}.wav", b"[bold]x.wav", b"$a$.wav", b"$\\foo$.wav", b"concat:a.wav", b"=1+1.wav"),
    *(b"<!--<script>.wav", b"&amp;.wav", b"x" * 251 + b".wav", "é".encode() * 125 + b".wav"),
    *("🎵\u200d.wav".encode(), "\u2028.wav".encode(), "\u202eabc.wav".encode(), b"\x85.wav"),
]
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A recording of 0.2 s under each name, each with content of its own."""
    folder = tmp_path_factory.mktemp("names")
    paths = []
    for seed, name in enumerate(NAMES):
        paths.append(os.path.join(folder, os.fsdecode(name)))  # noqa: PTH118 (as Python gives them)
        soundfile.write(folder / "s.wav", sound(0.2, 16_000, seed=seed)[0], 16_000)
        (folder / "s.wav").rename(paths[-1])
    return paths


@pytest.fixture(scope="module")
def indexed(
    names: list[str], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A collection of all of them, and their sources in it."""
    into = tmp_path_factory.mktemp("indexed") / "names.lance"
    done = run("index", *names, "-o", into, "--model", checkpoint, "--dtype", "float32")
    assert done.stdout.startswith(f"{into}: {len(NAMES)} added"), done.stderr
    assert (done.returncode, done.stderr) == (0, "")
    return into, [Source.from_path(name).uri for name in names]


def check_lines(done: CommandResult) -> list[str]:
    """The lines of a command that succeeds: nothing in them breaks a line, a terminal or UTF-8."""
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert not UNSAFE.search(text), UNSAFE.search(text)
    return done.stdout.splitlines()


def json_lines(done: CommandResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in check_lines(done)]


def test_text_of_a_path_is_reversible(names: list[str]) -> None:
    texts = [path_to_text(name) for name in names]
    assert [path_from_text(text) for text in texts] == names
    assert len(set(texts)) == len(names)
    assert texts[0].startswith("file:///")
    assert texts[0].endswith("caf%E9.wav")
    for text, name in zip(texts, names, strict=True):
        text.encode()
        assert Source.from_path(text) == Source.from_path(name)
        assert Source.from_path(text).path == name
        assert qa.load_waveform(text).name == printable(name)
    assert path_from_text("file://localhost/a%20b.wav") == "/a b.wav"
    assert path_from_text("s3://a%20b.wav") == "s3://a%20b.wav"
    assert path_to_text("\ud800.wav") == "\\ud800.wav"


@pytest.mark.slow
def test_index_again_list_verify_and_prune(
    indexed: tuple[Path, list[str]], names: list[str]
) -> None:
    into, sources = indexed
    assert f"{len(names)} unchanged" in check_lines(run("index", *sources, "-o", into))[0]
    shown = check_lines(run("collection", "list", into))
    assert len(shown) == len(names)
    listed = json_lines(run("collection", "list", into, "--json"))
    assert {row["source"] for row in listed} == set(sources)
    assert check_lines(run("collection", "verify", into, "--sample", "99"))[0].endswith(
        "0 problems"
    )
    assert json_lines(run("collection", "prune", into, "--json")) == [{"pruned": []}]


@pytest.mark.slow
def test_a_folder_is_indexed(names: list[str], checkpoint: Path, tmp_path: Path) -> None:
    folder, into = Path(names[0]).parent, tmp_path / "m.lance"
    done = run("index", folder, "-o", into, "--model", checkpoint, "--json")
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    skipped = [name for name in names if not name.endswith(".wav")]
    assert [path_from_text(text) for text in summary["skipped"]] == sorted(skipped)
    assert summary["added"] == len(names) - len(skipped)
    assert not UNSAFE.search(done.stdout + done.stderr)


@pytest.mark.slow
def test_search_and_open_each_result(indexed: tuple[Path, list[str]], names: list[str]) -> None:
    into, sources = indexed
    collection = qa.Collection.open(into)
    for name, source in zip(names, sources, strict=True):
        query = qa.load_waveform(name)
        result = collection.search(query, limit=1)[0]
        assert (result.source, round(result.score, 5)) == (source, 1.0)
        np.testing.assert_array_equal(qa.load_waveform(result.source).samples, query.samples)
        np.testing.assert_array_equal(collection.waveform(result.source).samples, query.samples)
        for row_id in (result.id, source, name):
            others = collection.search(like=row_id, limit=99)
            assert {row.source for row in others} == set(sources) - {source}
        where = "source = '{}'".format(source.replace("'", "''"))
        assert collection.search(query, where=where)[0].source == source
    check_lines(run("search", into, names[0], "--limit", "99"))
    found = json_lines(run("search", into, "--like", names[0], "--limit", "99", "--json"))
    assert {row["source"] for row in found} == set(sources[1:])


@pytest.mark.slow
def test_export(indexed: tuple[Path, list[str]], names: list[str], tmp_path: Path) -> None:
    parquet, datasets = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("datasets")
    into, sources = indexed
    for name in ("x.parquet", "x.npz", "dataset"):
        check_lines(run("collection", "export", into, "-o", tmp_path / name))
    assert set(parquet.read_table(tmp_path / "x.parquet")["source"].to_pylist()) == set(sources)
    assert set(np.load(tmp_path / "x.npz")["source"].tolist()) == set(sources)
    dataset = datasets.load_from_disk(str(tmp_path / "dataset"))
    dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    for row in dataset:
        expected = qa.load_waveform(names[sources.index(row["source"])])
        audio = row["audio"]["bytes"] or row["audio"]["path"]
        np.testing.assert_array_equal(qa.load_waveform(audio).samples, expected.samples)


@pytest.mark.slow
def test_map_and_playground(
    indexed: tuple[Path, list[str]],
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qwen_audio.collection.projection.UMAP_MIN_ROWS", 1000)  # PCA is faster
    into, sources = indexed
    for audio in ("embed", "link"):
        page = tmp_path / f"{audio}.html"
        check_lines(run("map", into, "-o", page, "--audio", audio))
    links = re.findall(r'"(file://[^"#]*)#t=', page.read_text(encoding="utf-8"))
    assert {path_from_text(link) for link in links} == set(names)
    collection = qa.Collection.open(into)
    tab = CollectionTab(AppContext(collection.model, Limits(), collection))
    page_request = type("Page", (), {"session_hash": "page"})()
    rows = tab.newest_rows()
    assert sorted(rows.file_names) == sorted(file_name(source) for source in sources)
    for index, row in enumerate(rows):
        name = printable(os.path.basename(Source(row["source"]).path))  # noqa: PTH119
        assert tab.play({"row": rows.id(index)}, page_request)["name"] == name
        assert tab.load_row(rows.id(index)).name == name


@pytest.mark.slow
def test_describe_encode_inspect_lens_plot_and_parity(
    names: list[str], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ("--model", checkpoint, "--dtype", "float32")
    texts = [path_to_text(name) for name in names]
    described = check_lines(run("describe", *model, *names[:7], "--max-new-tokens", "1"))
    assert len(described) >= 7
    rows = json_lines(run("describe", *model, *texts, "--max-new-tokens", "1", "--json"))
    assert [row["source"] for row in rows] == texts
    for output in ("x.npz", "x.parquet"):
        (row,) = json_lines(run("encode", *model, *names, "-o", output, "--json"))
        assert row["sources"] == texts
    assert np.load("x.npz")["source"].tolist() == texts
    traces = json_lines(run("inspect", *model, *names[:6], "--json"))
    assert [trace["source"] for trace in traces] == texts[:6]
    check_lines(run("inspect", *model, *names[:6]))
    check_lines(run("lens", *model, *names[:6], "--top", "1", "--tap", "lm.0"))
    odd = [names[0], *(name for name in names if "$\\" in name or len(name) > 200)]
    for format_option in ([], ["--html"]):
        check_lines(run("plot", *model, *odd, *format_option, "--panel", "novelty"))
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.html"))) == len(odd)
    check_lines(run("parity", *model, *names[:1]))


@pytest.mark.slow
def test_probe_labels(names: list[str], checkpoint: Path, tmp_path: Path) -> None:
    """Class folders, a manifest of each kind and rows."""
    labels = tmp_path / "labels"
    rows = []
    named = [name for name in names if name.endswith(".wav")][:20]
    for number, name in enumerate(named):
        folder = os.path.join(labels, os.fsdecode((b"cl\xe4ss", b"=new\nclass")[number % 2]))  # noqa: PTH118
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(name, folder)
        rows.append({"source": path_to_text(name), "kind": f"class {number % 2}"})
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "raw.jsonl").write_text(
        "\n".join(
            json.dumps({**row, "source": name}) for row, name in zip(rows, named, strict=True)
        ),
        encoding="utf-8",
    )
    options = ("--tap", "mel", "--model", checkpoint, "--folds", "2")
    for given in (labels, tmp_path / "l.jsonl", tmp_path / "raw.jsonl"):
        scores = json_lines(run("probe", given, *options, "-o", tmp_path / "out", "--json"))
        assert {score["recordings"] for score in scores} == {20}
        check_lines(run("probe", given, *options, "-o", tmp_path / "out"))


@pytest.mark.parametrize("name", ["z" * 300, "z/" * 3000, "a\0b.wav", "\ud800.wav"])
def test_names_that_no_file_can_have(name: str, checkpoint: Path, tmp_path: Path) -> None:
    """One line each; among others in an index a named failure."""
    good = tmp_path / "good.wav"
    soundfile.write(good, sound(0.2, 16_000)[0], 16_000)
    into, model = tmp_path / "m.lance", ("--model", checkpoint)
    for arguments in (
        ("describe", *model, name),
        ("encode", *model, name, "-o", tmp_path / "x.npz"),
        ("plot", *model, name, "-o", tmp_path / "x.png"),
        ("lens", *model, name),
        ("inspect", *model, name),
        ("parity", *model, name, "-o", tmp_path / "x.json"),
        ("probe", name),
        ("index", *model, name, "-o", into),
        ("search", f"{name}.lance", "--like", "a"),
        ("collection", "info", f"{name}.lance"),
        ("map", f"{name}.lance"),
        ("describe", "--model", name, good),
        ("encode", *model, good, "-o", f"{name}/x.npz"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), arguments[0]
        assert not UNSAFE.search(done.stdout + done.stderr)
    done = run("index", *model, good, name, "-o", into)
    assert done.returncode == 1
    assert "1 added" in done.stdout
    assert "1 failed" in done.stdout
    assert not UNSAFE.search(done.stderr)


def test_half_a_character_in_a_manifest(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"source": "a.wav", "genre": "\ud800"}))
    done = run("index", tmp_path / "m.jsonl", "-o", tmp_path / "m.lance", "--model", checkpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert "row 1: column genre holds half of a character" in done.stderr


def test_a_folder_that_cannot_be_listed(checkpoint: Path, tmp_path: Path) -> None:
    """It is a named failure, and the rest is indexed."""
    deep = tmp_path / "music"
    deep.mkdir()
    soundfile.write(deep / "good.wav", sound(0.2, 16_000)[0], 16_000)
    descriptor = os.open(deep, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("y" * 250, dir_fd=descriptor)
            inner = os.open("y" * 250, os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    finally:
        os.close(descriptor)
    done = run("index", deep, "-o", tmp_path / "m.lance", "--model", checkpoint)
    assert done.returncode == 1
    assert "1 added" in done.stdout
    assert "File name too long" in done.stderr
    assert done.stderr.endswith("qwen-audio: 1 of 2 files failed\n")
    shutil.rmtree(deep)


def test_manifests_name_them(names: list[str], tmp_path: Path) -> None:
    """With line breaks inside quotes, and characters that only Python takes for line breaks."""
    rows = [{"source": path_to_text(name), "number": k} for k, name in enumerate(names)]
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (tmp_path / f"m{suffix}").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["source", "number"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "m.jsonl").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    for suffix in (".csv", ".tsv", ".jsonl"):
        found = find_sources([tmp_path / f"m{suffix}"]).sources
        assert [source.path for source in found] == names
        assert [source.extra["number"] for source in found] == list(range(len(names)))

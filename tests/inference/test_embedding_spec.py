from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec

BASE = EmbeddingSpec(
    "Qwen/Qwen2-Audio-7B", "dd84470756e6277a71d4d7188773a43cde92696e", "audio_tower"
)
OTHER: dict[str, Any] = {
    "model": "embedded",
    "revision": "0" * 40,
    "tap": "encoder.32",
    "pooling": "max",
    "span": "all",
    "prompt": "",
    "window_seconds": 10.0,
    "hop_seconds": 15.0,
    "dtype": "bfloat16",
    "track": 1,
    "adapter": "1" * 40,
    "quantization": "int8",
    "edits": "audio_tower[audio]: zero()",
}


def fingerprint_elsewhere(settings: dict[str, Any]) -> str:
    script = (
        "from qwen_audio.inference.embedding_spec import EmbeddingSpec; "
        f"print(EmbeddingSpec.from_settings(**{settings!r}).fingerprint)"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_fingerprint_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Collections are found by it: if this fails, tables written before are orphaned."""
    assert BASE.fingerprint == "01b03aae7eedc757"


def test_an_adapter_is_stored_where_there_is_one() -> None:
    """Specs that were stored before there were adapters stay as they are."""
    assert "adapter" not in BASE.to_json()
    adapted = dataclasses.replace(BASE, adapter="1" * 40)
    assert '"adapter": "1111' in adapted.to_json()
    assert adapted.settings.keys() - BASE.settings.keys() == {"adapter"}
    assert EmbeddingSpec.from_json(adapted.to_json()) == adapted


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    assert fingerprint_elsewhere(BASE.settings) == BASE.fingerprint
    tracked = dataclasses.replace(BASE, track=0)
    assert fingerprint_elsewhere(tracked.settings) == tracked.fingerprint
    assert "track" not in BASE.to_json()


def test_every_setting_is_in_the_fingerprint() -> None:
    assert OTHER.keys() == {field.name for field in dataclasses.fields(EmbeddingSpec)}
    changed = [dataclasses.replace(BASE, **{name: value}) for name, value in OTHER.items()]
    assert len({BASE.fingerprint, *(spec.fingerprint for spec in changed)}) == len(OTHER) + 1


specs = st.builds(
    EmbeddingSpec,
    model=st.text(),
    revision=st.text(),
    tap=st.text(),
    pooling=st.text(),
    span=st.text(),
    prompt=st.none() | st.text(),
    window_seconds=st.floats(0.04, 30),
    hop_seconds=st.floats(0.04, 30),
    dtype=st.text(),
    track=st.none() | st.integers(0, 9),
    adapter=st.none() | st.text(),
)


@given(specs)
def test_json_round_trip(spec: EmbeddingSpec) -> None:
    line = spec.to_json()
    assert "\n" not in line
    assert EmbeddingSpec.from_json(line) == spec
    assert EmbeddingSpec.from_json(line).fingerprint == spec.fingerprint


@given(specs, specs)
def test_fingerprints_are_equal_where_specs_are(left: EmbeddingSpec, right: EmbeddingSpec) -> None:
    assert (left == right) == (left.fingerprint == right.fingerprint)


@given(st.permutations(list(dataclasses.asdict(BASE).items())))
def test_the_order_of_settings_does_not_matter(items: list[tuple[str, Any]]) -> None:
    assert EmbeddingSpec.from_json(json.dumps(dict(items))).fingerprint == BASE.fingerprint


def test_whole_seconds_are_the_same_seconds() -> None:
    whole = EmbeddingSpec.from_settings(
        **dataclasses.asdict(BASE) | {"window_seconds": 30, "hop_seconds": 30}
    )
    assert whole == BASE
    assert whole.fingerprint == BASE.fingerprint
    assert whole.to_json() == BASE.to_json()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"model": "m", "revision": "r", "tap": "mel", "poolin": "max"},
            "unknown settings ['poolin']",
        ),
        ({"model": "m", "revision": "r"}, "missing ones ['tap']"),
        ({}, "missing ones ['model', 'revision', 'tap']"),
    ],
)
def test_unknown_and_missing_settings_are_errors(settings: dict[str, Any], named: str) -> None:
    for make in (
        lambda: EmbeddingSpec.from_settings(**settings),
        lambda: EmbeddingSpec.from_json(json.dumps(settings)),
    ):
        with pytest.raises(OptionError) as caught:
            make()
        assert named in str(caught.value)
        assert "it takes adapter, dtype, edits, hop_seconds, model" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"spec"', "3"])
def test_what_is_no_spec_is_an_error(text: str) -> None:
    with pytest.raises(OptionError):
        EmbeddingSpec.from_json(text)

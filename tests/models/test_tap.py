"""Tap names, their order, and their widths and rates."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import ROW_TIMES
from qwen_audio.errors import TapError
from qwen_audio.models.tap import ModelDimensions, Stage, Tap

SMALL = ModelDimensions(80, 2, 8, 8, 1, 12, ROW_TIMES)
SEVEN_B = ModelDimensions(128, 32, 1280, 1280, 32, 4096, ROW_TIMES)

dimensions_of_any_model = st.builds(
    ModelDimensions,
    mel_bins=st.integers(1, 200),
    encoder_layers=st.integers(0, 40),
    encoder_width=st.integers(1, 2000),
    tower_width=st.integers(1, 2000),
    lm_layers=st.integers(0, 40),
    lm_width=st.integers(1, 5000),
    row_times=st.just(ROW_TIMES),
)


@pytest.mark.parametrize(
    ("text", "tap"),
    [
        ("mel", Tap(Stage.MEL)),
        ("encoder.0", Tap(Stage.ENCODER, 0)),
        ("encoder.32", Tap(Stage.ENCODER, 32)),
        ("encoder.-1", Tap(Stage.ENCODER, -1)),
        ("audio_tower", Tap(Stage.AUDIO_TOWER)),
        ("projector", Tap(Stage.PROJECTOR)),
        ("lm.0", Tap(Stage.LM, 0)),
        ("lm.-3", Tap(Stage.LM, -3)),
        ("lm.norm", Tap(Stage.LM_NORM)),
    ],
)
def test_parsing(text: str, tap: Tap) -> None:
    assert Tap.parse(text) == tap
    assert str(tap) == text
    assert Tap.parse(tap) is tap


@pytest.mark.parametrize(
    "text",
    [
        *("", "mel.0", "encoder", "encoder.", "encoder.norm", "encoder.1.5", "encoder.0x1"),
        *("audio_tower.1", "projector.norm", "lm", "lm.x", "LM.1", "lm.--1", "lm.+1", "lm-1"),
        *("lm.norm.1", " mel", "mel\n", "layer.3"),
    ],
)
def test_an_invalid_tap_is_an_error_that_lists_valid_ones(text: str) -> None:
    with pytest.raises(TapError) as caught:
        Tap.parse(text)
    message = str(caught.value)
    assert message.startswith(" ".join(f"{text!r} is not a tap: use mel, encoder.K".split()))
    assert "\n" not in message


@pytest.mark.parametrize("layer", ["٣", "03", "-0", "1_0", "9" * 5000])
def test_a_tap_has_one_name(layer: str) -> None:
    """Python's `int` accepts these, or refuses them for their length."""
    with pytest.raises(TapError):
        Tap.parse(f"lm.{layer}")


@given(dimensions_of_any_model)
def test_every_tap_is_parsed_from_its_name(dimensions: ModelDimensions) -> None:
    for tap in dimensions.taps():
        assert dimensions.tap(str(tap)) == tap == Tap.parse(str(tap))


@given(dimensions_of_any_model)
def test_taps_are_in_the_order_of_the_pipeline(dimensions: ModelDimensions) -> None:
    taps = dimensions.taps()
    assert len(set(taps)) == len(taps) == dimensions.encoder_layers + dimensions.lm_layers + 6
    assert taps[0] == Tap.parse("mel")
    assert taps[-1] == Tap.parse("lm.norm")
    reversed_taps = list(reversed(taps))
    assert sorted(reversed_taps) == list(taps)
    for left, right in itertools.pairwise(taps):
        assert left < right
        assert right >= left
        assert not right <= left
        assert left.stage <= right.stage


def test_all_taps_of_a_model() -> None:
    assert " ".join(map(str, SMALL.taps())) == (
        "mel encoder.0 encoder.1 encoder.2 audio_tower projector lm.0 lm.1 lm.norm"
    )


@given(dimensions_of_any_model, st.integers(-60, 60), st.sampled_from(["encoder", "lm"]))
def test_layers_count_from_either_end(dimensions: ModelDimensions, layer: int, stage: str) -> None:
    last = dimensions.encoder_layers if stage == "encoder" else dimensions.lm_layers
    layers = list(range(last + 1))
    if -len(layers) <= layer < len(layers):
        assert dimensions.tap(f"{stage}.{layer}") == Tap(Stage[stage.upper()], layers[layer])
    else:
        with pytest.raises(TapError, match=rf"{stage}\.0 to {stage}\.{last}"):
            dimensions.tap(f"{stage}.{layer}")


def test_the_error_for_a_layer_beyond_the_last() -> None:
    with pytest.raises(TapError) as caught:
        SMALL.tap("encoder.3")
    assert str(caught.value) == (
        "encoder.3 is not a tap of this model: encoder.K goes from encoder.0 to encoder.2, "
        "or from the end encoder.-1 to encoder.-3"
    )


@pytest.mark.parametrize(
    ("text", "width", "hop_seconds", "in_language_model"),
    [
        ("mel", 128, 0.01, False),
        ("encoder.0", 1280, 0.02, False),
        ("encoder.32", 1280, 0.02, False),
        ("audio_tower", 1280, 0.04, False),
        ("projector", 4096, 0.04, False),
        ("lm.0", 4096, 0.04, True),
        ("lm.32", 4096, 0.04, True),
        ("lm.norm", 4096, 0.04, True),
    ],
)
def test_widths_and_rates_of_the_7b_model(
    text: str, width: int, hop_seconds: float, in_language_model: bool
) -> None:
    tap = SEVEN_B.tap(text)
    assert SEVEN_B.width(tap) == width
    assert SEVEN_B.hop_seconds(tap) == pytest.approx(hop_seconds, abs=0)
    assert tap.in_language_model is in_language_model


def test_stages_without_times_do_not_exist() -> None:
    encoder = replace(SMALL, row_times={k: v for k, v in ROW_TIMES.items() if k < Stage.PROJECTOR})
    assert " ".join(map(str, encoder.taps())) == "mel encoder.0 encoder.1 encoder.2 audio_tower"
    for tap in ("projector", "lm.0", "lm.-1", "lm.norm"):
        with pytest.raises(TapError, match=r"not a tap of this model: its last one is audio_tower"):
            encoder.tap(tap)


@pytest.mark.parametrize("other", [None, 3, "mel"])
def test_taps_do_not_equal_other_types(other: Any) -> None:
    assert Tap(Stage.MEL) != other

"""Scores and classes of recordings: windows, tokenisation, warnings, sessions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.errors import ScoreWarning
from qwen_audio.inference.choices import has_leading_space
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
CHOICES = ["A piano.", "A guitar plays.", "Drums"]
pytestmark = pytest.mark.filterwarnings("ignore::qwen_audio.errors.ScoreWarning")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32", device="cpu", chat=False)


@pytest.fixture(scope="module")
def chat_model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32", device="cpu", chat=True)


def test_scores_of_windows_and_recordings(model: qa.AudioModel) -> None:
    clips = [sound(1.0), sound(2.5, 1)]
    one, two = model.score(clips, "What plays?", choices=CHOICES, window_seconds=1.0, **RATE)
    assert (one.log_probability.shape, two.log_probability.shape) == ((1, 3), (3, 3))
    assert [window.start_seconds for window in two.windows] == [0, 1, 2]
    alone = model.score(clips[1], "What plays?", choices=CHOICES, window_seconds=1.0, **RATE)
    np.testing.assert_allclose(alone.log_probability, two.log_probability, rtol=1e-5)
    np.testing.assert_allclose(two.mass, np.exp(two.log_probability).sum(axis=1))
    shares = np.exp(two.log_probability)
    np.testing.assert_allclose(two.probability, shares / shares.sum(axis=1, keepdims=True))
    mean = np.exp(two.log_probability.mean(axis=0))
    np.testing.assert_allclose(two.recording_probability, mean / mean.sum())
    assert two.ranking()[0] == CHOICES[int(mean.argmax())]
    assert "".join(two.tokens[0]) == " A piano."
    options: dict[str, Any] = {"over_windows": "sum", "length_normalized": True}
    other = model.score(
        clips[1], "What plays?", choices=CHOICES, window_seconds=1.0, **options, **RATE
    )
    np.testing.assert_allclose(other.log_probability, two.log_probability, rtol=1e-5)
    lengths = np.array([len(tokens) for tokens in two.tokens])
    total = np.exp((two.log_probability / lengths).sum(axis=0))
    np.testing.assert_allclose(other.recording_probability, total / total.sum(), rtol=1e-4)
    shares = np.exp(two.log_probability / lengths)
    expected = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(other.probability, expected, rtol=1e-4)
    assert (other.over_windows, other.length_normalized) == ("sum", True)
    assert (two.over_windows, two.length_normalized) == ("mean", False)


def test_the_end_is_one_of_the_tokens_and_the_least_mass_is_in_the_warning(
    model: qa.AudioModel,
) -> None:
    options: dict[str, Any] = {"choices": CHOICES, "window_seconds": 1.0, **RATE}
    with pytest.warns(ScoreWarning) as caught:
        scores = model.score(sound(2.5), include_end=True, length_normalized=True, **options)
    assert [tokens[-1] for tokens in scores.tokens] == [""] * 3
    lengths = [len(steps) for steps in scores.token_log_probabilities[0]]
    assert [len(tokens) for tokens in scores.tokens] == lengths
    np.testing.assert_allclose(scores.compared, scores.log_probability / lengths)
    texts = [f"a probability of {mass:.2g}," for mass in sorted(scores.mass)]
    assert texts[0] != texts[-1]
    assert texts[0] in str(caught[0].message)


def test_rows_are_those_of_the_table(model: qa.AudioModel, tmp_path: Path) -> None:
    scores = model.score(sound(1.5), choices=CHOICES, window_seconds=1.0, **RATE)
    table = scores.to_pandas()
    assert list(table.columns) == [
        *("source", "window", "start_seconds", "end_seconds", "choice"),
        *("log_probability", "tokens", "probability", "mass"),
    ]
    assert table.choice.tolist() == CHOICES * 2
    np.testing.assert_allclose(table.log_probability, scores.log_probability.ravel())
    assert table.tokens.tolist() == [len(tokens) for tokens in scores.tokens] * 2
    with np.load(scores.save(tmp_path / "scores.npz")) as saved:
        for name in ("log_probability", "probability", "mass", "recording_probability"):
            np.testing.assert_array_equal(saved[name], getattr(scores, name))
    assert "A guitar plays." in scores._repr_html_()
    best = scores.recording_probability.max()
    first = f"Scores({scores.name!r}, '{scores.ranking()[0]}' {best:.3f}, "
    assert repr(scores).startswith(first)


def test_choices_begin_with_a_space_after_a_plain_prompt_and_in_no_template(
    model: qa.AudioModel, chat_model: qa.AudioModel
) -> None:
    def tokens(loaded: qa.AudioModel, prompt: str | None = None, **options: Any) -> list[str]:
        scores = loaded.score(sound(0.5), prompt, choices=["Yes", " No"], **options, **RATE)
        return ["".join(each) for each in scores.tokens]

    assert tokens(model) == [" Yes", " No"]
    assert tokens(model, "Answer:\n") == ["Yes", " No"]
    assert tokens(model, leading_space=False) == ["Yes", " No"]
    assert tokens(chat_model) == ["Yes", " No"]
    assert tokens(chat_model, leading_space=True) == [" Yes", " No"]
    assert not has_leading_space("<|assistant|>", chat=True)  # a template without a line break
    assert tokens(chat_model, "<|audio_bos|><|AUDIO|><|audio_eos|>Is it?") == [" Yes", " No"]


def test_a_choice_is_tokenised_apart_from_the_prompt(model: qa.AudioModel) -> None:
    """No token has a part of both: the prompt's tokens are those of `describe`."""
    tokenizer = model.pipeline.tokenizer
    prompt, choice = "The lead is a gui", "tar"
    joined = tokenizer.encode_text(prompt + choice)
    assert joined != tokenizer.encode_text(prompt) + tokenizer.encode_text(choice)
    scores = model.score(sound(0.5), prompt, choices=[choice, "nean"], leading_space=False, **RATE)
    (window,) = model.pipeline.encode_audio([model.pipeline.log_mel(sound(0.5))])
    ids = [tokenizer.encode_text(text) for text in (choice, "nean")]
    (expected,) = model.pipeline.score(tokenizer.render(prompt), [[window]], ids)
    np.testing.assert_allclose(scores.log_probability[0], expected.log_probability, rtol=1e-5)


def test_control_tokens_in_choices_are_text(model: qa.AudioModel) -> None:
    scores = model.score(sound(0.5), choices=["<|AUDIO|>", "<|im_end|>"], **RATE)
    assert all(len(tokens) > 3 for tokens in scores.tokens)


def test_a_session_scores_on_its_cache_and_answers_as_before(
    model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, prompt = sound(1.3), "What plays?"
    expected = model.score(clip, prompt, choices=CHOICES, include_end=True, **RATE)
    text = model.describe(clip, prompt=prompt, max_new_tokens=8, **RATE)
    session = model.session(clip, **RATE)
    session.ask("Is it fast?", max_new_tokens=3)
    sizes: list[int] = []
    forward = type(model.pipeline.lm).forward

    def counting(self: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        sizes.append(sum(len(item.token_ids) for item in inputs))
        return forward(self, inputs, *args, **options)

    monkeypatch.setattr(type(model.pipeline.lm), "forward", counting)
    scores = session.score(prompt, choices=CHOICES, include_end=True)
    np.testing.assert_allclose(scores.log_probability, expected.log_probability, rtol=1e-5)
    assert sizes[0] < session.audio_tokens  # the audio's keys and values were there
    assert session.ask(prompt, max_new_tokens=8) == text
    assert session.ask(prompt, max_new_tokens=8) == text


def test_a_conversation_goes_on_after_a_score(chat_model: qa.AudioModel) -> None:
    def follow_up(with_score: bool) -> str:
        session = chat_model.session(sound(1.0), **RATE)
        session.ask("What plays?", max_new_tokens=5)
        if with_score:
            session.score("Is it loud?", choices=["Yes", "No"])
        return str(session.ask("Why?", follow_up=True, max_new_tokens=5))

    assert follow_up(with_score=True) == follow_up(with_score=False)


def test_spellings_of_a_class_add_up(model: qa.AudioModel) -> None:
    clips = [sound(0.6), sound(1.4, 1)]
    classes: dict[str, Any] = {"keys": ["A piano.", "An organ."], "drums": "Drums"}
    result = model.classify(clips, classes, "What?", window_seconds=1.0, **RATE)
    spellings = ["A piano.", "An organ.", "Drums"]
    for number, clip in enumerate(clips):
        scores = model.score(clip, "What?", choices=spellings, window_seconds=1.0, **RATE)
        shares = np.exp(scores.log_probability)
        both = np.stack([shares[:, 0] + shares[:, 1], shares[:, 2]], axis=1)
        both /= both.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(result.window_probability(number), both, rtol=1e-4)
        of_recording = np.exp(np.log(both).mean(axis=0))
        expected = of_recording / of_recording.sum()
        np.testing.assert_allclose(result.probability[number], expected, rtol=1e-4)
    assert [row["window"] for row in result.rows()] == [0, 0, 1]
    assert list(result.to_pandas().columns) == ["source", "label", "mass", "keys", "drums"]


def test_little_probability_on_the_choices_is_a_warning() -> None:
    model = qa.load(dtype="float32", device="cpu")
    clip = Path("examples/guitar.flac")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.score(clip, choices=["A", "B", "Someone"], leading_space=False)
    (warning,) = caught
    assert warning.category is ScoreWarning
    assert warning.filename == __file__
    message = str(warning.message)
    assert "\n" not in message
    assert message.startswith(f"{clip}: the model gives all choices together a probability of ")
    assert "; with a space before them (leading_space=) 0.8" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(clip, choices=["A", "B", "Someone"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": []}, "choices is empty: give at least one text"),
        ({"choices": "Yes"}, "choices='Yes': give a list of texts, such as ['Yes', 'No']"),
        ({"choices": ["a", " "]}, "choice 1 (' ') is empty: give a text, or leave it out"),
        ({"choices": ["a", "b", "a"]}, "choice 'a' is given twice: leave one out"),
        (
            {"choices": ["a", " a"]},
            "choices 'a' and ' a' are the same tokens: leave one out",
        ),
        ({"choices": ["Drum", "Drum beat"]}, "use include_end=True"),
        ({"choices": ["a"], "over_windows": "max"}, "over_windows='max': use 'mean' or 'sum'"),
        ({"choices": ["a", 3]}, "a choice=3 is not text"),
    ],
)
def test_choices_that_cant_be_scored(
    model: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError) as caught:
        model.score("missing.wav", **options)  # before anything is read
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        ("piano", {}, "classes='piano': give a list of texts"),
        (["piano"], {}, "1 class: give two or more to choose from"),
        (["a", "b", "a"], {}, "class 'a' is given twice: leave one out"),
        ({"a": [], "b": "b"}, {}, "class 'a' has no spellings"),
        ({"a": ["x", "y"], "b": "x"}, {}, "choice 'x' is given twice"),
        (["a", "b"], {"prior": "flat"}, "prior='flat': use 'none', 'batch', or a probability"),
        (["a", "b"], {"prior": [1.0]}, "prior=[1.0] for 2 classes: give a probability above 0"),
        (["a", "b"], {"prior": {"a": 1.0}}, "prior has a: give a probability for each of a, b"),
        (["a", "b"], {"prior": [1.0, 0.0]}, "give a probability above 0 for each"),
        (["a", "b"], {"temperature": 0}, "temperature=0.0: use a number above 0"),
    ],
)
def test_classes_that_cant_be_used(
    model: qa.AudioModel, classes: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError) as caught:
        model.classify("missing.wav", classes, **options)
    assert message in str(caught.value)


def test_whisper_has_nothing_to_score_with(tmp_path: Path) -> None:
    from families import CASES

    CASES["whisper"].write(tmp_path)
    model = qa.load(tmp_path, dtype="float32")
    with pytest.raises(qa.QwenAudioError, match="has no language model"):
        model.score(sound(0.5), choices=["a", "b"], **RATE)

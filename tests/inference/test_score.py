"""Scores of choices: each as transformers has it alone, whatever is in the same pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import qwen_audio as qa
from checkpoints import EMBEDDED, random_checkpoint
from qwen_audio.inference import score, token_tree
from qwen_audio.inference.generation import CachedContext
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.score import ChoiceScores
from qwen_audio.inference.token_tree import TokenTree, check_choices, split_choices
from reference import PLAIN, Reference, relative_error, sound

PROMPT = PLAIN + "Which instrument?"
CLIPS = [sound(seconds, seed) for seed, seconds in enumerate((0.7, 2.3))]
CHOICES = [(5,), (6, 7), (6, 8, 9, 10), (6, 8, 9, 11), (12, 7), (6, 8, 13)]
"""They share beginnings, and a token in another place."""


class Pair(NamedTuple):
    """One checkpoint, here and in transformers."""

    pipeline: Pipeline
    reference: Reference
    rows: list[list[Tensor]]


@pytest.fixture(scope="module", params=["grouped-query", "as many key heads", "embedded"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = EMBEDDED
    if request.param != "embedded":
        heads: dict[str, int] = {} if request.param == "grouped-query" else {"kv_heads": 4}
        folder = random_checkpoint(tmp_path_factory.mktemp("score"), lm_layers=2, **heads)
    pipeline = qa.load(folder, dtype="float32", device="cpu").pipeline
    return Pair(pipeline, Reference(folder), encoded(pipeline))


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Pipeline:
    return qa.load(checkpoint, dtype="float32", device="cpu").pipeline


def encoded(pipeline: Pipeline) -> list[list[Tensor]]:
    return [[rows] for rows in pipeline.encode_audio(list(map(pipeline.log_mel, CLIPS)))]


def steps(scores: ChoiceScores) -> np.ndarray:
    return np.concatenate(scores.token_log_probabilities)


def check_equal(scores: ChoiceScores, expected: ChoiceScores, tolerance: float = 1e-5) -> None:
    lengths = [len(each) for each in expected.token_log_probabilities]
    assert [len(each) for each in scores.token_log_probabilities] == lengths
    assert relative_error(steps(scores), steps(expected)) < tolerance


@pytest.mark.slow
def test_each_choice_equals_transformers_alone(pair: Pair) -> None:
    """With its end, which is that of a text or of a turn, and without."""
    stop_ids = sorted(pair.pipeline.tokenizer.stop_token_ids(chat=True))
    assert len(stop_ids) == 2
    scores, with_end = (
        pair.pipeline.score(PROMPT, pair.rows, CHOICES, include_end=include_end, chat=True)
        for include_end in (False, True)
    )
    for index, clip in list(enumerate(CLIPS))[1:]:  # transformers pads to 30 s
        for number, choice in list(enumerate(CHOICES))[1:4]:
            rows = pair.reference.log_probabilities(clip, PROMPT, choice)
            expected = [float(rows[place, token]) for place, token in enumerate(choice)]
            end = float(np.logaddexp.reduce(rows[-1, stop_ids]))
            for of_clip, steps_of in (
                (scores[index], expected),
                (with_end[index], [*expected, end]),
            ):
                actual = of_clip.token_log_probabilities[number]
                assert relative_error(np.array(actual), np.array(steps_of)) < 1e-5
                total = of_clip.log_probability[number]
                assert total == pytest.approx(math.fsum(steps_of), rel=1e-5)
        mass = np.exp(scores[index].log_probability).sum()
        assert scores[index].mass == pytest.approx(mass)


def test_packed_equals_single(pipeline: Pipeline) -> None:
    rows = encoded(pipeline)
    together = pipeline.score(PROMPT, rows, CHOICES)
    for audios, of_clip in zip(rows, together, strict=True):
        (alone,) = pipeline.score(PROMPT, [audios], CHOICES)
        check_equal(of_clip, alone)
        for number, choice in enumerate(CHOICES):
            (single,) = pipeline.score(PROMPT, [audios], [choice])
            actual = np.array(of_clip.token_log_probabilities[number])
            assert relative_error(actual, steps(single)) < 1e-5
        assert alone.audio_tokens == len(audios[0])
        ids = pipeline.build_inputs(PROMPT, [audios])[0].token_ids
        assert alone.audio_tokens + alone.prompt_tokens == len(ids)


def test_a_context_is_used_and_stays_valid(pipeline: Pipeline) -> None:
    """What is asked before and after is answered as without it, and only new positions cost."""
    audios, sampling = encoded(pipeline)[1], Sampling(6)
    (text,) = pipeline.generate(PROMPT, [audios], sampling)
    (expected,) = pipeline.score(PROMPT, [audios], CHOICES)
    context = CachedContext()
    for _ in range(2):
        (scores,) = pipeline.score(PROMPT, [audios], CHOICES, context=context)
        check_equal(scores, expected)
        assert context.token_ids == pipeline.build_inputs(PROMPT, [audios])[0].token_ids
        assert context.cache is not None
        assert context.cache.length(context.slot) == len(context.token_ids)
        (again,) = pipeline.generate(PROMPT, [audios], sampling, context=context)
        assert again.token_ids == text.token_ids
    (other,) = pipeline.score(PLAIN + "Is it fast?", [audios], CHOICES, context=context)
    check_equal(other, pipeline.score(PLAIN + "Is it fast?", [audios], CHOICES)[0])


def test_many_choices_take_several_passes(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = encoded(pipeline)
    expected = pipeline.score(PROMPT, rows, CHOICES, include_end=True)
    monkeypatch.setattr(token_tree, "_MAX_NODES", 5)
    parts = split_choices(CHOICES)
    assert len(parts) > 2
    assert sorted(number for part in parts for number in part) == list(range(len(CHOICES)))
    nodes: list[int] = []
    forward = type(pipeline.lm).forward

    def counting(self: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        nodes.extend(len(item.tree) for item in inputs)
        return forward(self, inputs, *args, **options)

    monkeypatch.setattr(type(pipeline.lm), "forward", counting)
    for scores, whole in zip(
        pipeline.score(PROMPT, rows, CHOICES, include_end=True), expected, strict=True
    ):
        check_equal(scores, whole)
    assert len(nodes) == len(parts) * len(rows)
    assert max(nodes) <= 5


def test_passes_under_edits_of_the_language_model_use_no_cache(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of all rows of a prompt can't be computed of its last one alone."""
    model = qa.load(checkpoint, dtype="float32", device="cpu")
    rows = encoded(model.pipeline)
    with model.edit("lm.1", qa.edits.mean_over_time(), span="prompt"):
        expected = model.pipeline.score(PROMPT, rows, CHOICES)
        monkeypatch.setattr(token_tree, "_MAX_NODES", 3)
        assert len(split_choices(CHOICES)) > 1
        for scores, whole in zip(
            model.pipeline.score(PROMPT, rows, CHOICES), expected, strict=True
        ):
            check_equal(scores, whole)


def test_logits_of_some_rows_at_a_time(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = encoded(pipeline)
    expected = pipeline.score(PROMPT, rows, CHOICES, include_end=True)
    for count in (1, 2, 3):
        monkeypatch.setattr(score, "_ROWS_AT_ONCE", count)
        found = pipeline.score(PROMPT, rows, CHOICES, include_end=True)
        for scores, whole in zip(found, expected, strict=True):
            check_equal(scores, whole)


def test_what_is_greedy_is_what_would_be_generated(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = encoded(pipeline)[:1]
    (text,) = pipeline.generate(PROMPT, rows, Sampling(3))
    one, two, three = text.token_ids
    other = 5 if two != 5 else 6
    choices = [(one, two), (one, other), (other, two)]
    (scores,) = pipeline.score(PROMPT, rows, choices)
    assert scores.is_greedy == (True, False, False)
    (ended,) = pipeline.score(PROMPT, rows, choices, include_end=True)
    assert ended.is_greedy == (False, False, False)
    monkeypatch.setattr(pipeline.tokenizer, "stop_token_ids", lambda _: frozenset({three}))
    (ended,) = pipeline.score(PROMPT, rows, choices, include_end=True)
    assert ended.is_greedy == (True, False, False)


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_scores_are_those_of_each_alone(checkpoint: Path, quantize: str) -> None:
    pipeline = qa.load(checkpoint, dtype="float32", device="cpu", quantize=quantize).pipeline
    audios = encoded(pipeline)[0]
    (scores,) = pipeline.score(PROMPT, [audios], CHOICES)
    for number, choice in enumerate(CHOICES):
        (alone,) = pipeline.score(PROMPT, [audios], [choice])
        actual = np.array(scores.token_log_probabilities[number])
        assert relative_error(actual, steps(alone)) < 1e-4
    (other,) = pipeline.score(PROMPT, [audios], CHOICES, context=CachedContext())
    check_equal(other, scores, 1e-4)


def test_streamed_scores_are_the_same(checkpoint: Path, pipeline: Pipeline) -> None:
    least = qa.load(checkpoint, dtype="float32", device="cpu").cost("text").min_memory_bytes
    model = qa.load(checkpoint, dtype="float32", device="cpu", max_memory=least)
    assert not model.pipeline.holds_weights(None)
    for scores, expected in zip(
        model.pipeline.score(PROMPT, encoded(model.pipeline), CHOICES),
        pipeline.score(PROMPT, encoded(pipeline), CHOICES),
        strict=True,
    ):
        check_equal(scores, expected)


def test_the_tree_has_each_token_once_and_no_leaves() -> None:
    tree = TokenTree.of(CHOICES, include_end=False)
    assert tree.token_ids == (6, 8, 9, 12)
    assert tree.parents == (-1, 0, 1, -1)
    assert len(tree.steps) == len({choice[:n] for choice in CHOICES for n in range(1, 5)}) == 10
    with_ends = TokenTree.of(CHOICES, include_end=True)
    assert len(with_ends.token_ids) == 10
    assert len(with_ends.steps) == 10 + len(CHOICES)


def test_repetition_penalty_and_temperature_play_no_part(
    checkpoint: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of tokens that the prompt has."""
    prompt_ids = pipeline.tokenizer.encode(PROMPT)
    choices = [(token, *prompt_ids[-2:]) for token in prompt_ids[-2:]]
    (expected,) = pipeline.score(PROMPT, encoded(pipeline)[:1], choices)
    other = qa.load(checkpoint, dtype="float32", device="cpu").pipeline
    monkeypatch.setattr(type(other.checkpoint), "repetition_penalty", 3.0)
    (scores,) = other.score(PROMPT, encoded(other)[:1], choices)
    check_equal(scores, expected)


@pytest.mark.parametrize(
    ("choices", "texts", "message"),
    [
        ([], [], "choices is empty: give at least one text"),
        ([(1,), ()], ["a", ""], "choice '' has no tokens: give a text, or leave it out"),
        ([(1,), (2,), (1,)], ["a", "b", "a"], "choice 'a' is given twice: leave one out"),
        ([(1,), (1,)], ["a", "á"], "choices 'a' and 'á' are the same tokens: leave one out"),
        (
            [(3,), (1, 2), (1,)],
            ["c", "ab", "a"],
            "choices 'a' and 'ab': the first begins the second, so that its probability includes "
            "the second's: use include_end=True, which asks for answers that end there",
        ),
    ],
)
def test_choices_that_cant_be_told_apart(
    choices: list[tuple[int, ...]], texts: list[str], message: str
) -> None:
    with pytest.raises(qa.OptionError) as caught:
        check_choices(choices, texts, include_end=False)
    assert str(caught.value) == message
    if "include_end" in message:
        check_choices(choices, texts, include_end=True)


def test_a_beginning_with_its_end_is_another_answer(pipeline: Pipeline) -> None:
    audios, choices = encoded(pipeline)[0], [(6,), (6, 8), (6, 8, 9)]
    with pytest.raises(qa.OptionError, match="include_end=True"):
        pipeline.score(PROMPT, [audios], choices)
    (scores,) = pipeline.score(PROMPT, [audios], choices, include_end=True)
    for number, choice in enumerate(choices):
        (alone,) = pipeline.score(PROMPT, [audios], [choice], include_end=True)
        actual = np.array(scores.token_log_probabilities[number])
        assert relative_error(actual, steps(alone)) < 1e-5


def test_an_answer_of_every_next_token_has_all_the_probability(pipeline: Pipeline) -> None:
    vocabulary = pipeline.checkpoint.family.text_config.vocab_size
    (scores,) = pipeline.score(PROMPT, encoded(pipeline)[:1], [(n,) for n in range(vocabulary)])
    assert scores.mass == pytest.approx(1, abs=1e-5)
    logits = pipeline.lm.logits(scores.last_row[None])[0].float().log_softmax(-1)
    np.testing.assert_allclose(scores.log_probability, logits.numpy(), rtol=1e-5)


def test_no_stop_tokens_and_a_full_context_are_errors(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = encoded(pipeline)[:1]
    length = len(pipeline.build_inputs(PROMPT, rows)[0].token_ids)
    monkeypatch.setattr(type(pipeline.lm), "max_positions", length + 3)
    with pytest.raises(qa.OptionError, match=f"{length + 4} positions"):
        pipeline.score(PROMPT, rows, CHOICES)
    pipeline.score(PROMPT, rows, CHOICES[:2])  # positions are places in an answer, not rows
    monkeypatch.setattr(pipeline.tokenizer, "stop_token_ids", lambda _: frozenset())
    with pytest.raises(qa.OptionError, match="names no token that ends an answer"):
        pipeline.score(PROMPT, rows, CHOICES[:2], include_end=True)


def test_half_precision_is_scored_in_float32(checkpoint: Path) -> None:
    pipeline: Any = qa.load(checkpoint, dtype="bfloat16", device="cpu").pipeline
    (scores,) = pipeline.score(PROMPT, encoded(pipeline)[:1], CHOICES)
    logits = pipeline.lm.logits(scores.last_row[None])[0]
    expected = logits.float().log_softmax(-1)[torch.tensor([5, 6, 12])].numpy()
    actual = [scores.token_log_probabilities[number][0] for number in (0, 1, 4)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)

"""Activation patching: trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from qwen_audio.analysis.trace import Trace
from qwen_audio.audio.inputs import AudioInput, is_single
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import OnDamage
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.errors import OptionError, number_option
from qwen_audio.inference.choices import Choices, has_leading_space
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.patching import patch_spans
from qwen_audio.inference.token_tree import TokenTree, check_choices
from qwen_audio.models.tap import Stage, Tap

from .base import ModelBase

__all__ = ["TraceMixin"]

TRACE_SPANS = ("audio", "prompt", "last", "answer")
_OWN_ANSWER_TOKENS = 16
"""Of the model's own answers: where captions differ, they do so in their first words."""

_LEAST_DIFFERENCE = 1e-3
"""In nats: of less, shares would be rounding errors."""


class TraceMixin(ModelBase):
    """The method that patches activations."""

    def trace(
        self,
        a: AudioInput,
        b: AudioInput,
        *,
        answers: Sequence[str] | None = None,
        spans: Sequence[str] | None = None,
        taps: Iterable[str | Tap] | None = None,
        prompt: str | None = None,
        seconds: float | None = None,
        include_end: bool = False,
        sampling_rate: int | None = None,
        on_damage: OnDamage = "raise",
    ) -> Trace:
        """Activation patching: where in the model, and in which positions, what makes it answer
        differently about two clips is still to be found.

        For each level and span the model reads `a`, with the rows of `b` there, and goes on from
        them. The result is the share of the way from the difference of the answers'
        log-probabilities for `a` (0) to that for `b` (1): see `Trace`.

        Args:
            a, b: two clips of the same length, of one window each.
            answers: what is said of `a`, and of `b`; by default the first 16 tokens of what the
                model itself says.
            spans: "audio"; "prompt", the text, its last position included; "last", the position
                before the answer; "answer", the answer's tokens. By default all that there are: of
                an answer of one token none is read.
            taps: levels, `lm.K`; all by default.
            prompt: "Describe the music:" by default.
            seconds: read only so many seconds of both, for clips that differ in length.
            include_end: count the end of the answers as one of their tokens.

        Raises:
            AudioError: for audio that can't be decoded.
            TapError, OptionError: for clips of different lengths, spans that the prompt has not,
                answers that the tokenizer can't tell apart, or clips that they don't.
        """
        if not (is_single(a) and is_single(b)):
            raise OptionError("trace takes two recordings, not lists: trace(a, b)")
        pipeline = self.pipeline
        if pipeline.edits_language_model:
            raise OptionError(
                "trace patches the language model's rows itself: use it outside edits of lm taps"
            )
        levels = self._trace_levels(taps)
        tokenizer, prompt_text = pipeline.tokenizer, pipeline.tokenizer.render(prompt)
        cut = None if seconds is None else number_option("seconds", seconds, "a number of seconds")
        one, two = (
            _of_one_window(
                load_waveform(item, sampling_rate=sampling_rate, on_damage=on_damage),
                cut,
                pipeline.checkpoint.family.window_limits.max_seconds,
            )
            for item in (a, b)
        )
        rows = pipeline.encode_audio([pipeline.log_mel(each.samples) for each in (one, two)])
        if len(rows[0]) != len(rows[1]):
            shorter = min(one.duration_seconds, two.duration_seconds)
            raise OptionError(
                f"{one.name} has {len(rows[0])} audio tokens and {two.name} {len(rows[1])}, so "
                "that their positions can't be paired: give clips of the same length, or "
                f"seconds={shorter:g}"
            )
        ids = (
            self._own_answers(prompt_text, rows)
            if answers is None
            else self._answer_ids(answers, prompt_text, include_end=include_end)
        )
        texts = [tokenizer.decode(each) for each in ids]
        check_choices(ids, texts, include_end=include_end)
        items = pipeline.build_inputs(prompt_text, [[each] for each in rows])
        positions = self._trace_positions(
            items[0], spans, TokenTree.of(ids, include_end=include_end)
        )
        found = patch_spans(
            pipeline,
            (items[0], items[1]),
            (ids[0], ids[1]),
            [tap.layer or 0 for tap in levels],
            positions,
            include_end=include_end,
        )
        trace = Trace(
            names=(one.name, two.name),
            answers=(texts[0].strip(), texts[1].strip()),
            taps=tuple(map(str, levels)),
            spans=tuple(positions),
            positions=tuple(map(len, positions.values())),
            log_probabilities=found.log_probabilities,
            difference=found.patched,
            prompt=prompt_text,
            dtype=self.dtype,
            edits=pipeline.all_edits,
        )
        if abs(trace.difference_b - trace.difference_a) < _LEAST_DIFFERENCE:
            raise OptionError(
                f"both clips favour {texts[0].strip()!r:.60} over {texts[1].strip()!r:.60} "
                f"equally ({trace.difference_a:+.4f} nats): choose answers on which the model "
                "differs"
            )
        return trace

    def _trace_levels(self, taps: Iterable[str | Tap] | None) -> list[Tap]:
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list, such as [{taps!r}]")
        _ = self.pipeline.lm  # raises where there is none
        levels = sorted(
            {tap for tap in self.taps if tap.stage is Stage.LM}
            if taps is None
            else set(self._resolve_taps(taps).values())
        )
        for tap in levels:
            if tap.stage is not Stage.LM or tap.part is not None:
                raise OptionError(f"trace at {tap}: rows are patched between layers, at lm.K")
        return levels

    def _trace_positions(
        self, item: DecoderInput, spans: Sequence[str] | None, tree: TokenTree
    ) -> dict[str, list[int]]:
        """By span the positions that are patched. Raises OptionError for one without any."""
        if isinstance(spans, str):
            raise OptionError(f"spans={spans!r} is one span: give a list, such as [{spans!r}]")
        if spans is not None and (unknown := [s for s in spans if s not in TRACE_SPANS]):
            raise OptionError(f"span {unknown[0]!r}: use {', '.join(TRACE_SPANS)}")
        audio = item.audios[0][0] if item.audios else None
        segments = item.segments(self.pipeline.tokenizer.audio_token_id, audio)
        kinds = [kind for kind, count in segments for _ in range(count)]
        by_span = {
            "audio": [k for k, kind in enumerate(kinds) if kind == "audio"],
            "prompt": [k for k, kind in enumerate(kinds) if kind == "prompt"],
            "last": [len(kinds) - 1],
            "answer": [len(kinds) + k for k in range(len(tree.token_ids))],
        }
        chosen = [s for s, rows in by_span.items() if rows] if spans is None else list(spans)
        if not chosen:
            raise OptionError(f"spans is empty: name at least one of {', '.join(TRACE_SPANS)}")
        for span in chosen:
            if not by_span[span]:
                reason = (
                    "answers of one token have no position that is read"
                    if span == "answer"
                    else "the prompt has none"
                )
                raise OptionError(f"span {span!r} has no positions, as {reason}: leave it out")
        return {span: by_span[span] for span in dict.fromkeys(chosen)}

    def _answer_ids(
        self, answers: Sequence[str], prompt_text: str, *, include_end: bool
    ) -> list[tuple[int, ...]]:
        if isinstance(answers, str) or len(answers) != 2:
            raise OptionError(f"answers={answers!r:.80}: give two texts, said of a and of b")
        tokenizer = self.pipeline.tokenizer
        leading_space = has_leading_space(prompt_text, chat=tokenizer.uses_chat_template)
        choices = Choices.of(
            answers, tokenizer, leading_space=leading_space, include_end=include_end
        )
        return list(choices.token_ids)

    def _own_answers(self, prompt_text: str, rows: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
        texts = self.pipeline.generate(
            prompt_text, [[each] for each in rows], Sampling(_OWN_ANSWER_TOKENS)
        )
        ids = [
            text.token_ids[:-1] if text.ended_by == "stop token" else text.token_ids
            for text in texts
        ]
        if ids[0] == ids[1]:
            raise OptionError(
                f"the model says {texts[0].text!r:.60} of both: give two answers, of a and of b"
            )
        return ids


def _of_one_window(waveform: Waveform, seconds: float | None, longest: float) -> Waveform:
    """A recording, or its first seconds. Raises OptionError where it is longer than a window, or
    shorter than these."""
    if seconds is not None:
        count = round(seconds * SAMPLE_RATE_HZ)
        if not 0 < count <= waveform.samples.size:
            raise OptionError(
                f"seconds={seconds:g}, but {waveform.name} lasts {waveform.duration_seconds:.2f} s"
            )
        waveform = Waveform(waveform.samples[:count], waveform.name)
    if waveform.duration_seconds > longest:
        raise OptionError(
            f"{waveform.name} lasts {waveform.duration_seconds:.1f} s, and trace takes one window "
            f"of up to {longest:g} s: give seconds={longest:g} or less"
        )
    return waveform

"""What answers of the embedded checkpoint depend on: patching and ablation of held-out clips.

    uv run --extra all python -m recipes.study.causes

writes the sections "used" and "listens" of docs/study.md, and docs/study/trace.png. The clips are
those of tests/data/held_out.ogg: music that names a lead, with instruments and sounds that the
checkpoint was not trained on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from recipes.embedded.instruments import INSTRUMENTS

import qwen_audio as qa
from qwen_audio.analysis.plots.panels import FigureSpec, Image, Panel, named_axis
from qwen_audio.analysis.plots.save import save_figure

from .page import fill_sections, markdown_table

__all__ = ["Clip", "listening", "pairs_of", "traces"]

ROOT = Path(__file__).parents[2]
DATA, PAGE, FIGURES = ROOT / "tests/data", ROOT / "docs/study.md", ROOT / "docs/study"
SECONDS, PAIRS, RESAMPLES, SEED = 3.0, 40, 2000, 0
_ANSWER_TOKENS = 8
"""Of a caption: those that name the lead."""
CONDITIONS = ("shuffled", "silence", "noise", "others")
SPANS = ("audio", "prompt", "last", "answer")


@dataclass(frozen=True, eq=False)
class Clip:
    """A held-out clip of music with a lead, and what the model says of it first."""

    waveform: qa.Waveform
    family: str
    answer: str


def read_clips(model: qa.AudioModel) -> list[Clip]:
    """Clips of at least `SECONDS` of music with a lead, cut to that length."""
    family_of = {instrument.name: instrument.family for instrument in INSTRUMENTS}
    samples = qa.load_waveform(DATA / "held_out.ogg").samples
    rows = json.loads((DATA / "held_out.json").read_text(encoding="utf-8"))
    size = round(SECONDS * 16_000)
    found = []
    for number, row in enumerate(rows):
        lead = row["true"].get("lead")
        if lead in family_of and row["samples"] >= size:
            part = samples[row["start"] : row["start"] + size]
            waveform = qa.Waveform(part.copy(), f"{number}: {lead}")
            found.append((waveform, family_of[lead]))
    answers = model.describe([clip for clip, _ in found], max_new_tokens=_ANSWER_TOKENS)
    return [
        Clip(waveform, family, str(answer))
        for (waveform, family), answer in zip(found, answers, strict=True)
    ]


def pairs_of(clips: Sequence[Clip], count: int) -> list[tuple[Clip, Clip, Clip]]:
    """Pairs of other families and other answers, each with a third clip of yet another family."""
    random = np.random.default_rng(SEED)
    pairs: list[tuple[Clip, Clip, Clip]] = []
    while len(pairs) < count:
        a, b, c = (clips[k] for k in random.choice(len(clips), 3, replace=False))
        begin = a.answer.startswith(b.answer) or b.answer.startswith(a.answer)
        if len({a.family, b.family, c.family}) == 3 and not begin:
            pairs.append((a, b, c))
    return pairs


def traces(
    model: qa.AudioModel, pairs: Sequence[tuple[Clip, Clip, Clip]]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Shares of the way from a to b, with the rows of b, and with those of the third clip.

    Returns:
        Both of shape (pairs, taps, spans), and the taps.
    """
    shares, controls = [], []
    for a, b, c in pairs:
        answers = (a.answer, b.answer)
        patched = model.trace(a.waveform, b.waveform, answers=answers, spans=SPANS)
        other = model.trace(a.waveform, c.waveform, answers=answers, spans=SPANS)
        way = patched.difference_b - patched.difference_a
        shares.append(patched.share)
        controls.append((other.difference - patched.difference_a) / way)
    return np.array(shares), np.array(controls), patched.taps


def listening(model: qa.AudioModel, clips: Sequence[Clip]) -> tuple[np.ndarray, list[str]]:
    """Drops of log P of each clip's caption, (clips, `CONDITIONS`), in nats; and the verdicts."""
    found = model.audio_ablation([clip.waveform for clip in clips])
    drops = [[*ablation.drop[1:4], np.median(ablation.others)] for ablation in found]
    return np.array(drops), [ablation.verdict for ablation in found]


def interval(values: np.ndarray, of: Callable[..., np.ndarray] = np.median) -> np.ndarray:
    """A statistic of the first axis, and the ends of its 95 % interval (bootstrap): (3, …)."""
    random = np.random.default_rng(SEED)
    drawn = random.integers(len(values), size=(RESAMPLES, len(values)))
    resampled = np.array([of(values[rows], axis=0) for rows in drawn])
    return np.stack([of(values, axis=0), *np.percentile(resampled, [2.5, 97.5], axis=0)])


def _text(value: float) -> str:
    """With two decimals; zero has no sign."""
    return f"{round(float(value), 2) + 0.0:.2f}"


def save_trace(shares: np.ndarray, taps: Sequence[str], pairs: int) -> None:
    """The medians as a heat map."""
    values = np.median(shares, axis=0)
    texts = [[_text(value) for value in row] for row in values]
    image = Image(values, "Share of the way", "signed", limits=(-1, 1), texts=texts)
    axes = named_axis(SPANS, "Span", 10), named_axis(taps, "Level", 40)
    panel = Panel(f"Median of {pairs} pairs of clips", 2.6, *axes, (image,))
    heading = "Where the answer is decided", "the second clip's rows in the first one's pass"
    save_figure(FigureSpec(*heading, ((panel,),), 7.0), FIGURES / "trace.png", theme="light")


def used_section(shares: np.ndarray, controls: np.ndarray, taps: Sequence[str], pairs: int) -> str:
    """The table of shares, with intervals."""
    (middle, low, high), (control, *_) = interval(shares), interval(controls)
    rows = [
        [
            tap,
            *(
                f"{_text(middle[k, s])} ({_text(low[k, s])} to {_text(high[k, s])})"
                for s in range(len(SPANS))
            ),
            _text(control[k, 0]),
        ]
        for k, tap in enumerate(taps)
    ]
    table = markdown_table(["", *SPANS, "audio of a third clip"], rows)
    return f"Medians of {pairs} pairs, with 95 % intervals (bootstrap over pairs):\n\n{table}"


def listens_section(drops: np.ndarray, verdicts: Sequence[str]) -> str:
    """The table of drops, and how many captions depend on the sound."""
    rows = [
        [name, f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{np.mean(drops[:, k] > np.log(2)):.0%}"]
        for k, (name, middle, low, high) in enumerate(
            zip(CONDITIONS, *interval(drops), strict=True)
        )
    ]
    names = {"others": "other clips (their median)", "shuffled": "audio tokens shuffled"}
    rows = [[names.get(name, name), *cells] for name, *cells in rows]
    header = ["in place of the sound", "drop of log P(caption), nats", "less than half as likely"]
    depends = sum(verdict == "depends on the sound" for verdict in verdicts)
    return (
        f"{markdown_table(header, rows)}\n\nOf {len(verdicts)} captions {depends} depend on the "
        "sound, by the rule of [audio_ablation](interventions.md#does-it-listen-audio_ablation)."
    )


def main() -> None:
    """Trace, ablate, and write the page."""
    model = qa.load(dtype="float32")
    clips = read_clips(model)
    pairs = pairs_of(clips, PAIRS)
    shares, controls, taps = traces(model, pairs)
    save_trace(shares, taps, len(pairs))
    drops, verdicts = listening(model, clips)
    sections = {
        "used": used_section(shares, controls, taps, len(pairs)),
        "listens": listens_section(drops, verdicts),
    }
    PAGE.write_text(fill_sections(PAGE.read_text(encoding="utf-8"), sections), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The figure, the tables and the sentences with numbers of docs/study.md, from probe scores."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_audio.probing.plots import save_depth_plot

_LINEAR_PROBES = ("logistic", "ridge")
_DEPTH_TAPS = (
    *("mel", "encoder.0", "encoder.2", "encoder.4", "audio_tower"),
    *("lm.0", "lm.2", "lm.norm"),
)
_ENCODER_TAPS = ("mel", *(f"encoder.{k}" for k in range(5)), "audio_tower")
_LM_PREFIXES = ("lm", "projector")

ProbeRun = Mapping[str, Any]
"""Content of the scores.json of one `qwen-audio probe`."""
ProbeRuns = Mapping[str, ProbeRun]


def save_figure(runs: ProbeRuns, folder: Path) -> None:
    """Save the plot of scores by depth."""
    import pandas as pd

    scores = pd.DataFrame(runs["mean"]["scores"])
    title = "What each tap of the embedded checkpoint encodes"
    save_depth_plot(scores, folder / "depth.png", title)


def fill_page(page: str, runs: ProbeRuns) -> str:
    """The page with new text between its markers.

    Raises:
        ValueError: if a marker is missing.
    """
    sections = {
        "about": _about(runs["mean"]),
        "depth": _depth_table(runs["mean"]),
        "peaks": _peaks(runs["mean"]),
        "controls": _controls(runs),
        "before": _training_comparison(runs["before"], runs["mean"]),
        "spread": _best_taps(runs["mean"], runs["spread"], "mean", "mean+std", encoder=True),
        "last": _best_taps(runs["mean"], runs["last"], "audio, mean", "last", encoder=False),
    }
    return fill_sections(page, sections)


def fill_sections(page: str, sections: Mapping[str, str]) -> str:
    """The page with new text between its markers.

    Raises:
        ValueError: if a marker is missing.
    """
    for name, text in sections.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = page.partition(begin)
        _, end_found, after = rest.partition(end)
        if not end_found:
            raise ValueError(f"the page has no {begin} … {end}")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def _linear_rows(
    run: ProbeRun, target: str, *, weighted_sums: bool = False
) -> list[dict[str, Any]]:
    """Scores of linear probes on taps, or on weighted sums of layers."""
    return [
        row
        for row in run["scores"]
        if row["target"] == target
        and row["probe"] in _LINEAR_PROBES
        and row["tap"].startswith("weighted") == weighted_sums
    ]


def _targets(run: ProbeRun) -> list[str]:
    return list(dict.fromkeys(row["target"] for row in run["scores"]))


def _about(run: ProbeRun) -> str:
    return (
        f"Checkpoint revision `{run['revision'][:12]}`, {run['dtype']}, {run['recordings']} clips, "
        f"package {run['qwen_audio']}."
    )


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with the first column on the left, the others on the right."""
    names = list(header)
    lines = [f"| {' | '.join(names)} |", f"| --- {'| ---: ' * (len(names) - 1)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _cells(scores: Mapping[str, float], taps: Iterable[str], best: float) -> list[str]:
    """Scores of some taps, with the best in bold."""
    texts = {tap: f"{scores[tap]:.2f}" for tap in taps}
    return [f"**{text}**" if scores[tap] == best else text for tap, text in texts.items()]


def _depth_table(run: ProbeRun) -> str:
    def table_row(target: str) -> list[str]:
        rows = _linear_rows(run, target)
        scores = {row["tap"]: row["score"] for row in rows}
        classes = rows[0]["classes"]
        return [
            f"{target} ({f'{classes} classes' if classes else 'R²'})",
            *_cells(scores, _DEPTH_TAPS, max(scores.values())),
            f"{rows[0]['baseline']:.2f}",
            f"{max(row['control'] for row in rows):.2f}",
        ]

    return markdown_table(
        ["", *_DEPTH_TAPS, "baseline", "highest control"],
        (table_row(target) for target in _targets(run)),
    )


def _peaks(run: ProbeRun) -> str:
    """Best taps of the encoder and of the language model, and weighted sums of layers."""

    def table_row(target: str) -> list[str]:
        rows = _linear_rows(run, target)
        encoder = max((r for r in rows if not r["tap"].startswith(_LM_PREFIXES)), key=_score)
        lm = max((r for r in rows if r["tap"].startswith(_LM_PREFIXES)), key=_score)
        sums = {row["tap"]: row["score"] for row in _linear_rows(run, target, weighted_sums=True)}
        return [
            target,
            f"{encoder['tap']} {_with_interval(encoder)}",
            f"{lm['tap']} {_with_interval(lm)}",
            *(f"{sums[name]:.2f}" for name in ("weighted encoder", "weighted lm")),
        ]

    table = markdown_table(
        ["", "best encoder tap", "best of projector and lm", "weighted encoder", "weighted lm"],
        (table_row(target) for target in _targets(run)),
    )
    return f"{table}\n\n{_timbre_before_tempo(run)}"


def _training_comparison(before: ProbeRun, after: ProbeRun) -> str:
    """Encoder taps before and after training, and where the scores peak before."""

    def table_row(run: ProbeRun, weights: str, target: str) -> list[str]:
        scores = {row["tap"]: row["score"] for row in _linear_rows(run, target)}
        best = max(scores[tap] for tap in _ENCODER_TAPS)
        return [f"{target}, {weights}", *_cells(scores, _ENCODER_TAPS, best)]

    targets = [target for target in _targets(before) if target in ("instrument", "family", "tempo")]
    runs = ((before, "Whisper"), (after, "trained"))
    table = markdown_table(
        ["", *_ENCODER_TAPS],
        (table_row(run, weights, target) for target in targets for run, weights in runs),
    )
    return f"{table}\n\n{_whisper_peaks(before)}"


def _whisper_peaks(run: ProbeRun) -> str:
    """Where timbre and tempo peak in Whisper's encoder, and how they score at its last layer."""
    clauses, last = [], _ENCODER_TAPS[-2]
    for target, name in (("instrument", "timbre"), ("tempo", "tempo")):
        by_tap = {row["tap"]: row for row in _linear_rows(run, target)}
        peak = max((by_tap[tap] for tap in _ENCODER_TAPS), key=_score)
        separate = by_tap[last]["high"] < peak["low"]
        clauses.append(
            f"{name} peaks at {peak['tap']} with {peak['score']:.2f} and scores "
            f"{_with_interval(by_tap[last])} at {last} (confidence intervals "
            f"{'do not overlap' if separate else 'overlap'})"
        )
    return f"In Whisper's encoder, {'; '.join(clauses)}."


def _timbre_before_tempo(run: ProbeRun) -> str:
    """Whether timbre peaks before tempo in the encoder, and whether the intervals support it."""
    rows_of = {
        target: [r for r in _linear_rows(run, target) if not r["tap"].startswith(_LM_PREFIXES)]
        for target in ("instrument", "tempo")
    }
    order = [row["tap"] for row in rows_of["tempo"]]
    peak = {target: max(rows, key=_score) for target, rows in rows_of.items()}
    timbre, tempo = (order.index(peak[target]["tap"]) for target in ("instrument", "tempo"))
    if timbre >= tempo:
        return "In this run timbre does **not** peak earlier in the encoder than tempo."
    at_tempo_peak = next(r for r in rows_of["instrument"] if r["tap"] == peak["tempo"]["tap"])
    claim = "In this run timbre peaks earlier in the encoder than tempo"
    if at_tempo_peak["score"] >= peak["instrument"]["low"]:
        return (
            f"{claim}, but not by more than the confidence intervals: where tempo peaks, timbre is "
            "within the interval of its own peak. Both rise clearly through the first layers."
        )
    return f"{claim}, by more than the confidence intervals."


def _controls(runs: ProbeRuns) -> str:
    rows = [row for run in runs.values() for row in run["scores"]]
    above = [row for row in rows if not row["control_at_chance"]]
    if not above:
        return f"All {len(rows)} controls with shuffled labels are at chance."
    names = ", ".join(f"{row['target']} at {row['tap']} ({row['control']:.3f})" for row in above)
    return f"{len(above)} of {len(rows)} controls with shuffled labels are above chance: {names}."


def _best_taps(
    first: ProbeRun, second: ProbeRun, first_name: str, second_name: str, *, encoder: bool
) -> str:
    """Best encoder (or language model) tap of two runs, target by target."""

    def best(run: ProbeRun, target: str) -> dict[str, Any]:
        rows = [r for r in _linear_rows(run, target) if r["tap"] != "projector"]
        return max((r for r in rows if r["tap"].startswith("lm") != encoder), key=_score)

    table_rows = []
    for target in _targets(second):
        pair = [best(run, target) for run in (first, second)]
        table_rows.append([target, *(f"{row['tap']} {_with_interval(row)}" for row in pair)])
    return markdown_table(["", first_name, second_name], table_rows)


def _score(row: Mapping[str, Any]) -> float:
    return float(row["score"])


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f})"

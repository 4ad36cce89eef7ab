"""Scores → the figure, the tables and the sentences with numbers in docs/study.md."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_audio.probing.plots import depth_picture

LINEAR = ("logistic", "ridge")
_COLUMNS = ("mel", "encoder.0", "encoder.2", "encoder.4", "audio_tower", "lm.0", "lm.2", "lm.norm")
_EAR = ("mel", *(f"encoder.{k}" for k in range(5)), "audio_tower")

Found = Mapping[str, Mapping[str, Any]]


def figures(found: Found, folder: Path) -> None:
    """Draw them."""
    import pandas as pd

    scores = pd.DataFrame(found["mean"]["scores"])
    depth_picture(scores, folder / "depth.png", "What each tap of the embedded checkpoint holds")


def filled(page: str, found: Found) -> str:
    """The page with everything between its marks made anew."""
    parts = {
        "about": _about(found["mean"]),
        "depth": _depth(found["mean"]),
        "peaks": _peaks(found["mean"]),
        "controls": _controls(found),
        "before": _before(found["before"], found["mean"]),
        "spread": _compared(found["mean"], found["spread"], "mean", "mean+std", ear=True),
        "last": _compared(found["mean"], found["last"], "audio, mean", "last", ear=False),
    }
    for name, text in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"the page has no {begin} … {end}")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def _rows(run: Mapping[str, Any], target: str, *, mixed: bool = False) -> list[dict[str, Any]]:
    return [
        row
        for row in run["scores"]
        if row["target"] == target
        and row["probe"] in LINEAR
        and row["tap"].startswith("weighted") == mixed
    ]


def _targets(run: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["target"] for row in run["scores"]))


def _about(run: Mapping[str, Any]) -> str:
    return (
        f"Checkpoint revision `{run['revision'][:12]}`, {run['dtype']}, {run['recordings']} clips, "
        f"package {run['qwen_audio']}."
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"| --- {'| ---: ' * (len(names) - 1)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _depth(run: Mapping[str, Any]) -> str:
    def line(target: str) -> list[str]:
        rows = _rows(run, target)
        at = {row["tap"]: row["score"] for row in rows}
        best = max(at.values())
        shown = {tap: f"{at[tap]:.2f}" for tap in _COLUMNS}
        cells = [f"**{text}**" if at[tap] == best else text for tap, text in shown.items()]
        first = rows[0]
        kind = f"{first['classes']} classes" if first["classes"] else "R²"
        controls = max(row["control"] for row in rows)
        return [
            f"{target} ({kind})",
            *cells,
            f"{first['baseline']:.2f}",
            f"{controls:.2f}",
        ]

    return _table(
        ["", *_COLUMNS, "baseline", "shuffled, at most"],
        (line(target) for target in _targets(run)),
    )


def _peaks(run: Mapping[str, Any]) -> str:
    """Where each is read best, in the ear and in the language model; layers combined."""

    def line(target: str) -> list[str]:
        rows = _rows(run, target)
        ear = max((r for r in rows if not r["tap"].startswith(("lm", "proj"))), key=_score)
        lm = max((r for r in rows if r["tap"].startswith(("lm", "proj"))), key=_score)
        mixes = {row["tap"]: row["score"] for row in _rows(run, target, mixed=True)}
        return [
            target,
            f"{ear['tap']} {_between(ear)}",
            f"{lm['tap']} {_between(lm)}",
            *(f"{mixes[name]:.2f}" for name in ("weighted encoder", "weighted lm")),
        ]

    table = _table(
        ["", "best of the ear", "best of projector and lm", "weighted encoder", "weighted lm"],
        (line(target) for target in _targets(run)),
    )
    return f"{table}\n\n{_verdict(run)}"


def _before(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The ear tap by tap as it was given and as it was trained, and what that says."""

    def line(run: Mapping[str, Any], whose: str, target: str) -> list[str]:
        at = {row["tap"]: row["score"] for row in _rows(run, target)}
        best = max(at[tap] for tap in _EAR)
        shown = {tap: f"{at[tap]:.2f}" for tap in _EAR}
        cells = [f"**{text}**" if at[tap] == best else text for tap, text in shown.items()]
        return [f"{target}, {whose}", *cells]

    targets = [target for target in _targets(before) if target in ("instrument", "family", "tempo")]
    runs = ((before, "Whisper's ear"), (after, "trained"))
    table = _table(["", *_EAR], (line(run, who, t) for t in targets for run, who in runs))
    return f"{table}\n\n{_kept(before)}"


def _kept(run: Mapping[str, Any]) -> str:
    """Where timbre and tempo peak in Whisper's ear, and what is left of them after its layers."""
    said, last = [], _EAR[-2]
    for target, name in (("instrument", "timbre"), ("tempo", "tempo")):
        at = {row["tap"]: row for row in _rows(run, target)}
        peak = max((at[tap] for tap in _EAR), key=_score)
        lost = at[last]["high"] < peak["low"]
        said.append(
            f"{name} is read best at {peak['tap']} ({_between(peak)[:4]}), and at {last} "
            f"{_between(at[last])}: {'less by more' if lost else 'not less by more'} than the "
            "intervals"
        )
    return f"In Whisper's own ear {'; '.join(said)}."


def _verdict(run: Mapping[str, Any]) -> str:
    """Whether timbre peaks before tempo in the ear, and whether the intervals bear it out."""
    ears = {
        target: [r for r in _rows(run, target) if not r["tap"].startswith(("lm", "proj"))]
        for target in ("instrument", "tempo")
    }
    order = [row["tap"] for row in ears["tempo"]]
    peak = {target: max(rows, key=_score) for target, rows in ears.items()}
    timbre, tempo = (order.index(peak[target]["tap"]) for target in ("instrument", "tempo"))
    if timbre >= tempo:
        return "In this run timbre does **not** peak earlier in the ear than tempo does."
    there = next(r for r in ears["instrument"] if r["tap"] == peak["tempo"]["tap"])
    found = "In this run timbre peaks earlier in the ear than tempo does"
    if there["score"] >= peak["instrument"]["low"]:
        return (
            f"{found}, but by less than the intervals: where tempo peaks, timbre is within them of "
            "its own peak. What is plain is that both rise through the first layers."
        )
    return f"{found}, and by more than the intervals."


def _controls(found: Found) -> str:
    rows = [row for run in found.values() for row in run["scores"]]
    off = [row for row in rows if not row["at_chance"]]
    if not off:
        return f"All {len(rows)} controls with shuffled labels sit at chance."
    names = ", ".join(f"{row['target']} at {row['tap']} ({row['control']:.3f})" for row in off)
    return f"Of {len(rows)} controls with shuffled labels {len(off)} do not sit at chance: {names}."


def _compared(
    one: Mapping[str, Any], other: Mapping[str, Any], first: str, second: str, *, ear: bool
) -> str:
    """The best of the same taps, read in two ways."""

    def best(run: Mapping[str, Any], target: str) -> dict[str, Any]:
        lm = ("lm",)
        return max((r for r in _rows(run, target) if r["tap"].startswith(lm) != ear), key=_score)

    rows = []
    for target in _targets(other):
        pairs = [best(run, target) for run in (_without_projector(one), other)]
        rows.append([target, *(f"{row['tap']} {_between(row)}" for row in pairs)])
    return _table(["", first, second], rows)


def _without_projector(run: Mapping[str, Any]) -> dict[str, Any]:
    return {**run, "scores": [row for row in run["scores"] if row["tap"] != "projector"]}


def _score(row: Mapping[str, Any]) -> float:
    return float(row["score"])


def _between(row: Mapping[str, Any]) -> str:
    return f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f})"

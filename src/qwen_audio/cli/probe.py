"""The command `probe`: what it prints and what it writes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio import __version__
from qwen_audio.errors import OptionError

from .console import (
    bars,
    load_model,
    print_error,
    print_json,
    print_line,
    report_failures,
    show_table,
    windowing_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from qwen_audio.analysis.plots.theme import ThemeName

__all__ = ["RUNS"]


def _probe(options: argparse.Namespace) -> int:
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder} can't be written ({error.strerror}): name a folder") from error
    model = load_model(options)
    from qwen_audio.analysis.files import json_rows
    from qwen_audio.probing.probe import probe

    given = {
        "targets": options.target,
        "classes": options.classes,
        "taps": options.tap,
        "poolings": options.pooling,
        "spans": options.span,
        "probes": options.probe,
        "prompt": options.prompt,
        "group": options.group,
        "split": options.split,
        "folds": options.folds,
        "seed": options.seed,
        "cache": options.cache,
        **windowing_of(options),
    }
    with bars() as report:
        scores = probe(
            options.labels,
            model,
            errors="leave_out",
            on_progress=report,
            **{name: value for name, value in given.items() if value is not None},
        )
    failures: Mapping[str, str] = scores.attrs["failures"]
    about = scores.attrs["about"]
    for reason in failures.values():
        print_error(reason)
    skipped = about["skipped"]
    if skipped:
        print_error(f"{len(skipped)} files skipped (not audio), such as {skipped[0]}")
    for note in scores.attrs["notes"]:
        print_error(note)
    rows = json_rows(scores.to_dict("records"))
    _write(scores, rows, folder, {"labels": str(options.labels), **about}, options.theme)
    if options.json:
        for row in rows:
            print_json(row)
    else:
        from .tables import score_tables

        for table in score_tables(rows):
            show_table(table)
        print_line(f"  {folder}: scores.csv, scores.json, depth.png, depth.html")
    trusted = bool(scores["at_chance"].all())
    return max(
        report_failures(len(failures), about["recordings"] + len(failures)), int(not trusted)
    )


RUNS: dict[str, Callable[[argparse.Namespace], int]] = {"probe": _probe}


def _write(
    scores: pd.DataFrame,
    rows: list[dict[str, Any]],
    folder: Path,
    about: Mapping[str, Any],
    theme: ThemeName,
) -> None:
    from qwen_audio.probing.plots import depth_page, depth_picture

    title = f"What each tap of {Path(about['model']).name} holds"
    data = {
        "qwen_audio": __version__,
        **about,
        "failures": scores.attrs["failures"],
        "notes": scores.attrs["notes"],
        "scores": rows,
    }
    try:
        (folder / "scores.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        scores.drop(columns="weights").to_csv(folder / "scores.csv", index=False)
        depth_picture(scores, folder / "depth.png", title, theme=theme)
        depth_page(scores, folder / "depth.html", title, theme=theme)
    except OSError as error:
        raise OptionError(f"{folder} can't be written ({error.strerror or error})") from error

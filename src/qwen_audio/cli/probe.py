"""`qwen-audio probe`: linear probes of labels at every tap."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio import __version__
from qwen_audio.errors import OptionError, counted

from .checks import check_windows
from .console import (
    load_model,
    print_error,
    print_json,
    print_line,
    report_failures,
    show_table,
)
from .options import (
    add_command,
    add_compute_options,
    add_list_option,
    add_model_options,
    add_prompt_option,
    add_track_option,
    add_window_options,
    load_settings,
    specified_options,
    window_settings,
)
from .progress import progress_bars

if TYPE_CHECKING:
    import pandas as pd

    from qwen_audio.analysis.plots.theme import ThemeName
    from qwen_audio.probing.labels import LabelledDataset

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "probe",
        run,
        "Score how well labels can be predicted from every tap.",
        "Needs the extra [probe].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_track_option(parser)
    parser.add_argument(
        "labels",
        metavar="LABELS",
        help="a manifest (.csv, .tsv, .jsonl) with a column `source` and columns of labels, "
        "or a folder with one folder per class",
    )
    add_list_option(parser, "--target", "COLUMN", "a column to probe (default: all)")
    add_list_option(
        parser,
        "--task",
        "COLUMN=TASK",
        "what a column holds: classes, quantity, or labels (several in a cell: jazz;piano); "
        "by default chosen by its values",
    )
    add_list_option(parser, "--tap", "TAP", "see `qwen-audio taps` (default: all)")
    add_list_option(parser, "--pooling", "HOW", "mean (default), max, mean+std or last")
    add_list_option(
        parser,
        "--span",
        "SPAN",
        "rows to pool: audio (default); at lm taps also prompt, last or all",
    )
    add_list_option(parser, "--probe", "PROBE", "logistic, ridge or knn (default: all that apply)")
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        help="recordings with the same value are never both trained on and tested "
        "(default: `group`)",
    )
    parser.add_argument(
        "--split",
        metavar="COLUMN",
        help="train and test, or names of folds (default: `split`, if there is such a column)",
    )
    parser.add_argument(
        "--folds", type=int, metavar="N", help="folds of cross-validation (default: 5)"
    )
    parser.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="leave out classes with fewer recordings (default: --folds; 1 with given splits)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of folds and shuffles (default: 0)"
    )
    add_window_options(parser)
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        help="keep embeddings there, so that probing other labels takes seconds",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="probe",
        metavar="FOLDER",
        help="for scores.csv, scores.json, depth.png and depth.html (default: probe)",
    )
    parser.add_argument(
        "--theme", choices=("light", "dark"), default="light", help="of the charts (default: light)"
    )


def run(options: argparse.Namespace) -> int:
    """Print and write the scores; exit status 1 if a file failed or a control isn't at chance."""
    dataset, folder, known_notes = _check_options(options)
    for note in known_notes:
        print_error(note)
    model = load_model(options)
    from qwen_audio.analysis.files import json_rows
    from qwen_audio.probing.probe import probe

    settings = specified_options(
        taps=options.tap,
        poolings=options.pooling,
        spans=options.span,
        probes=options.probe,
        prompt=options.prompt,
        folds=options.folds,
        min_count=options.min_count,
        seed=options.seed,
        cache=options.cache,
        **load_settings(options),
        **window_settings(options),
    )
    with progress_bars() as report:
        scores = probe(dataset, model, errors="leave_out", on_progress=report, **settings)
    failures: Mapping[str, str] = scores.attrs["failures"]
    about = scores.attrs["about"]
    for reason in failures.values():
        print_error(reason)
    skipped = about["skipped"]
    if skipped:
        print_error(f"{counted(len(skipped), 'file')} skipped (not audio), such as {skipped[0]}")
    for note in scores.attrs["notes"]:
        if note not in known_notes:
            print_error(note)
    rows = json_rows(scores.to_dict("records"))
    _write_results(scores, rows, folder, {"labels": str(options.labels), **about}, options.theme)
    if options.json:
        for row in rows:
            print_json(row)
    else:
        from .tables import score_tables

        for table in score_tables(rows):
            show_table(table)
        print_line(f"  {folder}: scores.csv, scores.json, depth.png, depth.html")
    controls_at_chance = bool(scores["control_at_chance"].all())
    return max(
        report_failures(len(failures), about["recordings"] + len(failures)),
        int(not controls_at_chance),
    )


def _check_options(options: argparse.Namespace) -> tuple[LabelledDataset, Path, list[str]]:
    """Check everything that doesn't depend on the model.

    Returns:
        The labels, the folder of the results, and notes about the labels.

    Raises:
        MissingExtraError: without the extra `probe`.
        TapError, OptionError: for malformed or contradictory options, and invalid labels.
    """
    from qwen_audio.analysis.files import check_output_folder
    from qwen_audio.inference.options import check_prompt, check_vector_pooling, taps_with_span
    from qwen_audio.models.tap import Stage, Tap
    from qwen_audio.probing.labels import read_labels
    from qwen_audio.probing.options import check_folds, check_installed, check_probes, check_seed
    from qwen_audio.probing.tasks import make_tasks

    check_installed("matplotlib", "plotly")  # for the charts
    check_probes(options.probe)
    check_seed(options.seed)
    check_folds(options.folds)
    for pooling in options.pooling or ():
        check_vector_pooling(pooling, "recording")
    taps = [Tap.parse(tap) for tap in options.tap or ()] or [Tap(Stage.LM_NORM)]
    for span in options.span or ():
        taps_with_span(span, taps)
    check_prompt(options.prompt, taps)
    check_windows(options)
    folder = check_output_folder(options.output)
    dataset = read_labels(
        options.labels,
        targets=options.target,
        tasks=_tasks(options.task or ()),
        group=options.group,
        split=options.split,
    )
    _, notes = make_tasks(
        dataset, None, options.probe, options.folds, options.min_count, options.seed
    )
    return dataset, folder, notes


def _tasks(texts: Sequence[str]) -> dict[str, str]:
    """The task of each column. Raises OptionError for a text that isn't COLUMN=TASK."""
    tasks: dict[str, str] = {}
    for text in texts:
        column, _, task = text.rpartition("=")
        if not column:
            raise OptionError(f"--task {text}: use COLUMN=TASK, such as year=classes")
        if column in tasks:
            raise OptionError(f"--task names {column!r} more than once")
        tasks[column] = task
    return tasks


def _write_results(
    scores: pd.DataFrame,
    rows: list[dict[str, Any]],
    folder: Path,
    about: Mapping[str, Any],
    theme: ThemeName,
) -> None:
    """Write scores.csv, scores.json, depth.png and depth.html, each atomically."""
    from qwen_audio.analysis.files import atomic_write, csv_bytes, write_errors
    from qwen_audio.probing.plots import save_depth_plot

    title = f"What each tap of {Path(about['model']).name} holds"
    data = {
        "qwen_audio": __version__,
        **about,
        "failures": scores.attrs["failures"],
        "notes": scores.attrs["notes"],
        "scores": rows,
    }
    text = json.dumps(data, indent=1) + "\n"
    table = [{name: row[name] for name in row if name != "weights"} for row in rows]
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "scores.json", lambda path: path.write_text(text, encoding="utf-8"))
    atomic_write(folder / "scores.csv", lambda path: path.write_bytes(csv_bytes(table)))
    save_depth_plot(scores, folder / "depth.png", title, theme=theme)
    save_depth_plot(scores, folder / "depth.html", title, theme=theme)

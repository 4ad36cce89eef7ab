"""`qwen-audio classify`: the probability of each class, for recordings (zero-shot)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import OptionError, counted
from qwen_audio.paths import path_from_text, path_to_text, printable

from .checks import check_files, check_windows
from .console import load_model, print_error, print_json, print_line, process_files
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_model_options,
    add_prompt_option,
    add_window_options,
    load_settings,
    window_settings,
)
from .plot_files import add_theme_option, check_plot_path, write_plot
from .progress import FileProgress
from .true_labels import add_true_label_options, report_reliability, true_labels

if TYPE_CHECKING:
    from qwen_audio.analysis.scores import Scores

__all__ = ["add_parser", "read_classes"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "classify",
        run,
        "Give the probability of each of several answers, or classes (zero-shot).",
        "Pictures and pages need the extra [plot].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_input_options(parser)
    parser.add_argument(
        "--labels",
        required=True,
        metavar="LABELS",
        help="a text file: a class a line, as the answer that it is, or its name and its "
        "spellings separated by tabs; or .json: spellings by class",
    )
    parser.add_argument(
        "--prior",
        choices=("none", "batch"),
        default="none",
        help="divide by the mean over all files: batch (default: none)",
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of probabilities (default: 1)"
    )
    parser.add_argument(
        "--include-end", action="store_true", help="the answer ends after the label"
    )
    parser.add_argument(
        "--leading-space",
        choices=("yes", "no"),
        help="whether labels begin with a space (default: after a plain prompt)",
    )
    parser.add_argument(
        "--length-normalized",
        action="store_true",
        help="compare labels by the mean over their tokens, not the sum",
    )
    parser.add_argument(
        "--over-windows",
        choices=("mean", "sum"),
        default="mean",
        help="how log-probabilities of windows make a recording's (default: mean)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="numbers by window (.csv, .json, .npz), or a plot (.png, .svg, .pdf, .html)",
    )
    add_true_label_options(parser)
    add_theme_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the likeliest class of every file, and write all probabilities."""
    from qwen_audio.analysis.classes import as_classes, as_temperature
    from qwen_audio.inference.choices import check_texts

    classes = as_classes(read_classes(options.labels))
    check_texts([text for texts in classes.values() for text in texts])
    as_temperature(options.temperature)
    check_windows(options)
    output = None if options.output is None else Path(options.output)
    if output is not None:
        check_plot_path(output, options)
    elif options.theme and options.reliability is None:
        raise OptionError("--theme is for plots: name an output with -o, such as -o a.png")
    files = resolve_files(options)
    labels = true_labels(options, classes)
    if options.prior == "batch" and len(files) < 2:
        raise OptionError("--prior batch of 1 recording would make all classes alike: leave it out")
    check_files(files)
    settings = {
        "prompt": options.prompt,
        "include_end": options.include_end,
        "leading_space": {"yes": True, "no": False, None: None}[options.leading_space],
        "length_normalized": options.length_normalized,
        "over_windows": options.over_windows,
        **load_settings(options),
        **window_settings(options),
    }
    model = load_model(options)
    from qwen_audio.analysis.classification import Classification

    scores: dict[str, Scores] = {}

    def classify(file: str, _: FileProgress) -> float:
        result = model.classify(file, classes, temperature=options.temperature, **settings)
        scores[file] = result.scores[0]
        if options.prior == "none":
            _print(file, result, options, labels.get(file))
        return result.scores[0].windows[-1].end_seconds

    status = process_files(files, classify, "classify")
    if options.prior == "batch" and len(scores) < 2:
        raise OptionError(
            "--prior batch: fewer than 2 recordings could be classified: leave it out"
        )
    if not scores:
        return status
    whole = Classification.of(list(scores.values()), classes, options.prior, options.temperature)
    if options.prior == "batch":
        for number, file in enumerate(scores):
            _print(file, whole.only(number), options, labels.get(file))
    if output is not None:
        written = write_plot(whole, output, options)
        if options.json:
            print_json({"output": written})
        else:
            print_line(f"{written}: {counted(len(scores), 'recording')}")
    if labels:
        report_reliability(whole, [labels[file] for file in scores], options)
    return status


def _print(file: str, result: Any, options: argparse.Namespace, target: str | None) -> None:
    """The likeliest class of the only recording of a result, beside the true one where known."""
    from qwen_audio.analysis.files import json_rows

    (row,) = json_rows(result.recordings(), decimals=6)
    if options.json:
        shares = {name: row[name] for name in result.classes}
        (windows,) = [json_rows(result.rows(), decimals=6)]
        kept = ("window", "start_seconds", "end_seconds", "label", "mass")
        print_json(
            {
                "source": path_to_text(file),
                "label": result.labels[0],
                **({} if target is None else {"target": target}),
                "mass": row["mass"],
                "probabilities": shares,
                "windows": [
                    {
                        **{key: window[key] for key in kept},
                        "probabilities": {n: window[n] for n in shares},
                    }
                    for window in windows
                ],
                "notes": result.scores[0].notes,
            }
        )
        return
    share = result.probability.max()
    other = "" if target in (None, result.labels[0]) else f", in truth {printable(target)}"
    mass = f"mass {result.mass[0]:.2g}"
    print_line(f"{printable(file)}: {result.labels[0]} {share:.3f} ({mass}{other})")
    for note in result.scores[0].notes:
        print_error(f"{file}: {note}")


def read_classes(path: str) -> dict[str, list[str]]:
    """Classes with their spellings, from a file: see `--labels`.

    Raises:
        OptionError: for a file that can't be read, or names a class twice.
    """
    try:
        text = Path(path_from_text(path)).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OptionError(
            f"--labels {path} can't be read ({reason}): give a text file with one label a line"
        ) from error
    if Path(path).suffix.lower() == ".json":
        return _of_json(path, text)
    classes: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, *spellings = line.strip().split("\t")
        if not name:
            continue
        if name in classes:
            raise OptionError(f"--labels {path}: {name!r:.60} is there twice: leave one out")
        classes[name] = [spelling.strip() for spelling in spellings] or [name]
    return classes


def _of_json(path: str, text: str) -> dict[str, list[str]]:
    try:
        data = json.loads(text)
        if isinstance(data, list):
            data = {name: [name] for name in data}
        return {
            name: [texts] if isinstance(texts, str) else list(texts) for name, texts in data.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise OptionError(
            f'--labels {path} isn\'t of the form {{"class": ["spelling", …], …}} ({error})'
        ) from error

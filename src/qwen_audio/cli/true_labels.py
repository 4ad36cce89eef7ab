"""True labels of `classify`: from a column of the inputs' manifests, and what they say of it."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_audio.errors import OptionError
from qwen_audio.paths import printable

from .console import print_json, print_line
from .plot_files import check_plot_path, write_plot

if TYPE_CHECKING:
    from qwen_audio.analysis.classification import Classification

__all__ = ["add_true_label_options", "report_reliability", "true_labels"]


def add_true_label_options(parser: argparse.ArgumentParser) -> None:
    """--target, --reliability and --fit-temperature."""
    parser.add_argument(
        "--target",
        metavar="COLUMN",
        help="a column of the INPUT manifests with the true class of each recording: also prints "
        "the accuracy and the expected calibration error",
    )
    parser.add_argument(
        "--reliability",
        metavar="OUT",
        help="with --target: accuracy by confidence, as numbers (.csv, .json, .npz) or a plot "
        "(.png, .svg, .pdf, .html)",
    )
    parser.add_argument(
        "--fit-temperature",
        action="store_true",
        help="with --target: also print the temperature at which the true classes are likeliest, "
        "for the --temperature of other recordings",
    )


def true_labels(options: argparse.Namespace, classes: Collection[str]) -> dict[str, str]:
    """The true class of each of `options.files`; empty without --target.

    Raises:
        OptionError: for a recording without one, one that is no class, or options that need
            --target.
    """
    if options.target is None:
        for name in ("reliability", "fit_temperature"):
            if getattr(options, name):
                raise OptionError(f"--{name.replace('_', '-')} needs true labels: give --target")
        return {}
    if options.reliability is not None:
        if Path(options.reliability) == Path(options.output or ""):
            raise OptionError("--reliability and -o name the same file: give two")
        check_plot_path(Path(options.reliability), options)
    labels: dict[str, str] = {}
    for file in options.files:
        value = options.columns[file].get(options.target)
        if value is None or not str(value).strip():
            columns = ", ".join(options.columns[file]) or "none"
            raise OptionError(
                f"{printable(file)} has nothing in a column {options.target!r}: give a manifest "
                f"with the true class of each recording (its columns: {printable(columns):.200})"
            )
        labels[file] = str(value).strip()
        if labels[file] not in classes:
            raise OptionError(
                f"{printable(file)} has {labels[file]!r:.60} in {options.target!r}, which is no "
                f"class of --labels: use {', '.join(classes):.200}"
            )
    return labels


def report_reliability(
    result: Classification, labels: Sequence[str], options: argparse.Namespace
) -> None:
    """Print how often the likeliest class is the true one, and write --reliability.

    Args:
        labels: of the recordings, in order.

    Raises:
        OptionError: where no temperature fits.
    """
    found = result.reliability(labels)
    written = None
    if options.reliability is not None:
        written = write_plot(found, Path(options.reliability), options)
    if options.json:
        print_json({**found.facts(), "rows": found.rows(), "output": written})
    else:
        print_line(
            f"accuracy {found.mean_accuracy:.3f} ({found.right} of {found.recordings} right), "
            f"expected calibration error {found.expected_calibration_error:.3f}"
        )
        if written is not None:
            print_line(f"  {written}")
    if options.fit_temperature:
        temperature = result.fit_temperature(labels).temperature
        if options.json:
            print_json({"temperature": temperature})
        else:
            print_line(
                f"the true classes are likeliest at a temperature of {temperature:.4g}: for other "
                f"recordings use --temperature {temperature:.4g}"
            )

"""The options of `qwen-audio probe`, and nothing of what it does."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from .options import CommandFunction, add_command, add_windows

__all__ = ["add_probe"]


def add_probe(
    commands: Any, runs: Mapping[str, CommandFunction], *parents: argparse.ArgumentParser
) -> None:
    """qwen-audio probe LABELS."""
    probe = add_command(
        commands,
        runs["probe"],
        "probe",
        "Ask of every tap how well labels can be read off it, with controls.",
        *parents,
    )
    probe.add_argument(
        "labels",
        metavar="LABELS",
        help="a manifest (.csv, .tsv, .jsonl) with a column `source` and columns of labels, "
        "or a folder of one folder a class",
    )
    some: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    probe.add_argument("--target", **some, help="columns to probe (default: all)")
    probe.add_argument("--classes", **some, help="columns whose numbers are names of classes")
    probe.add_argument("--tap", **some, help="see `qwen-audio taps` (default: all)")
    probe.add_argument("--pooling", **some, help="mean (default), max, mean+std, last")
    probe.add_argument(
        "--span", **some, help="rows to pool: audio (default); at lm taps also prompt, last, all"
    )
    probe.add_argument("--probe", **some, help="logistic, ridge, knn (default: all that apply)")
    probe.add_argument(
        "--group",
        metavar="COLUMN",
        help="clips that share its value are never both trained on and tested (default: `group`)",
    )
    probe.add_argument(
        "--split",
        metavar="COLUMN",
        help="train and test, or names of folds (default: `split`, if there is such a column)",
    )
    probe.add_argument("--folds", type=int, metavar="N", help="of cross-validation (default: 5)")
    probe.add_argument("--seed", type=int, default=0, metavar="N", help="of folds and shuffles")
    add_windows(probe)
    probe.add_argument(
        "--cache", metavar="FOLDER", help="keep vectors there: other labels then take seconds"
    )
    probe.add_argument(
        "-o",
        "--output",
        default="probe",
        metavar="FOLDER",
        help="for scores.csv, scores.json, depth.png and depth.html (default: probe)",
    )
    probe.add_argument(
        "--theme", choices=("light", "dark"), default="light", help="of the charts (default: light)"
    )

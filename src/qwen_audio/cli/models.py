"""`qwen-audio models`: the families of models that are supported."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from .console import print_json, show_table
from .options import add_command, add_json_option

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "models",
        run,
        "List the families of models that are supported, and their checkpoints on the hub.",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print what the registry has of each family; no family is imported."""
    from qwen_audio.models.registry import FAMILIES

    if options.json:
        for entry in FAMILIES:
            fields = dataclasses.asdict(entry)
            # Where its class is concerns this package alone.
            print_json({key: fields[key] for key in fields if key not in ("module", "name")})
        return 0
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("family", "model_type", "on the hub", "parameters", "licence", box=SIMPLE_HEAD)
    for entry in FAMILIES:
        table.add_row(
            entry.title,
            "\n".join(entry.model_types),
            "\n".join(entry.hub_models),
            "\n".join(entry.hub_models.values()),
            entry.license,
        )
    show_table(table)
    return 0

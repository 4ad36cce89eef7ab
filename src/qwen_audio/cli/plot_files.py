"""Plot options and output files of `lens` and `plot`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_audio.errors import OptionError, check_extra
from qwen_audio.paths import is_folder

from .options import add_list_option
from .output_names import output_paths

if TYPE_CHECKING:
    from qwen_audio.analysis.plots.figure_spec import Plottable

__all__ = [
    "add_plot_options",
    "add_theme_option",
    "check_panels",
    "check_plot_path",
    "plot_paths",
    "write_plot",
]


def add_plot_options(parser: argparse.ArgumentParser, panels: Sequence[str]) -> None:
    """--panel, of these names, and --theme."""
    add_list_option(parser, "--panel", "PANEL", f"one of {', '.join(panels)} (default: most)")
    add_theme_option(parser)


def add_theme_option(parser: argparse.ArgumentParser) -> None:
    """--theme."""
    parser.add_argument("--theme", choices=("light", "dark"), help="light (default) or dark")


def check_panels(options: argparse.Namespace, result: str, panels: Sequence[str]) -> None:
    """Raises OptionError for names of panels that a result of this type doesn't have."""
    for name in options.panel or ():
        if name not in panels:
            raise OptionError(f"panel {name!r}: a {result} has {', '.join(panels)}")


def plot_paths(options: argparse.Namespace, suffix: str) -> dict[str, Path]:
    """The output path of every file of `options.files`, checked.

    Args:
        suffix: of the names FILE.suffix, which are used if -o is missing or a folder.

    Raises:
        OptionError: for a path that can't be written to, or shared by several files.
    """
    files: Sequence[str] = options.files
    output = Path(options.output) if options.output else Path()
    if options.output and not is_folder(output):
        if len(files) > 1:
            raise OptionError(
                f"-o {output} for {len(files)} files: name an existing folder, for one each"
            )
        check_plot_path(output, options)
        return {files[0]: output}
    paths = output_paths(options.depths, output, suffix)
    for path in paths.values():
        check_plot_path(output / path.name, options)
    return paths


def check_plot_path(path: Path, options: argparse.Namespace) -> None:
    """Check the path's suffix and folder against the options, and what draws it.

    Raises:
        OptionError: for a suffix that `write_plot` or an option doesn't allow.
        MissingExtraError: for a plot without the extra `plot`.
    """
    from qwen_audio.analysis.files import NUMBER_SUFFIXES, PLOT_SUFFIXES, check_output_path

    check_output_path(path, (*PLOT_SUFFIXES, *NUMBER_SUFFIXES))
    suffix = path.suffix.lower()
    if getattr(options, "html", False) and suffix != ".html":
        raise OptionError(f"--html and -o {path}: a page's name ends in .html")
    if suffix in NUMBER_SUFFIXES and (getattr(options, "panel", None) or options.theme):
        raise OptionError(f"--panel and --theme do nothing for {path}, which holds numbers")
    if suffix == ".html":
        check_extra("an interactive plot", "plot", "plotly")
    elif suffix in PLOT_SUFFIXES:
        check_extra("a picture", "plot", "matplotlib")


def write_plot(plottable: Plottable, path: Path, options: argparse.Namespace) -> str:
    """Write a plot, or its numbers, as the suffix says, in its folder; the path as text."""
    from qwen_audio.analysis.files import NUMBER_SUFFIXES, write_errors
    from qwen_audio.analysis.plots.save import save_plot

    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in NUMBER_SUFFIXES:
        return str(plottable.save(path))
    panels = getattr(options, "panel", None)
    return str(save_plot(plottable, path, panels, theme=options.theme or "light"))

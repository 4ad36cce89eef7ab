"""The commands for the eye: lens, plot and map."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from qwen_audio.errors import OptionError

from .console import (
    each,
    load_model,
    print_error,
    print_json,
    print_line,
    report_failures,
    show_table,
    windowing_of,
)

if TYPE_CHECKING:
    from qwen_audio.analysis.plots.panels import Plottable

__all__ = ["RUNS"]


def _lens(options: argparse.Namespace) -> int:
    targets = _targets(options, "lens.png") if options.output else {}
    if not targets and (options.panels or options.theme):
        raise OptionError(
            "--panels and --theme are for pictures: name one with -o, such as -o a.png"
        )
    model = load_model(options)
    from qwen_audio.analysis.files import json_rows

    from .tables import lens_tables

    def show(file: str) -> None:
        lens = model.lens(
            file,
            prompt=options.prompt,
            span=options.span,
            taps=options.taps,
            top=options.top,
            tokens=options.tokens,
            nearest=options.nearest,
            **windowing_of(options),
        )
        written = _write(lens, targets[file], options) if targets else None
        if options.json:
            print_json(
                {
                    "source": file,
                    "output": written,
                    **lens.facts(),
                    "rows": json_rows(lens.table(), decimals=6),
                }
            )
            return
        for table in lens_tables(lens):
            show_table(table)
        if written:
            print_line(f"  {written}")

    return each(options.files, show)


def _plot(options: argparse.Namespace) -> int:
    if options.layers:
        return _plot_layers(options)
    panels = options.panels
    if panels and options.depth and "depth" not in panels:
        panels = options.panels = [*panels, "depth"]
    ending = f"{options.tap or 'audio_tower'}.{'html' if options.html else 'png'}"
    targets = _targets(options, ending)
    model = load_model(options)
    window = {} if options.window is None else {"window_seconds": options.window}

    def show(file: str) -> None:
        view = model.view(
            file,
            tap=options.tap or "audio_tower",
            prompt=options.prompt,
            depth=options.depth or "depth" in (panels or []),
            kernel_seconds=options.kernel,
            **window,
        )
        written = _write(view, targets[file], options)
        if options.json:
            print_json({"source": file, "output": written, **view.facts()})
            return
        found = ", ".join(f"{start:.1f}" for start in view.boundaries) or "none found"
        print_line(f"{written}: {view.tap}, sections begin at (s): {found}")

    return each(options.files, show)


def _plot_layers(options: argparse.Namespace) -> int:
    for name in ("tap", "kernel", "depth", "panels"):
        if getattr(options, name):
            raise OptionError(f"--{name} does nothing with --layers, which compares all taps")
    target = Path(options.output or ("layers.html" if options.html else "layers.png"))
    if target.is_dir():
        target /= "layers.html" if options.html else "layers.png"
    _check(target, options)
    model = load_model(options)
    from qwen_audio.analysis.files import json_rows

    window = {} if options.window is None else {"window_seconds": options.window}
    layers = model.layer_similarity(options.files, prompt=options.prompt, **window)
    written = _write(layers, target, options)
    if options.json:
        print_json(
            {"output": written, **layers.facts(), "rows": json_rows(layers.table(), decimals=6)}
        )
    else:
        print_line(f"{written}: {len(layers.taps)} taps over {len(layers.names)} recordings")
    return 0


def _map(options: argparse.Namespace) -> int:
    from qwen_audio.analysis.files import check_output_path
    from qwen_audio.collection.collection import Collection

    target = check_output_path(
        options.output or f"{PurePath(options.collection).stem}.html", (".html",)
    )
    layout = Collection.open(options.collection).map(
        method=options.method, seed=options.seed, where=options.where
    )
    page = layout.write_html(
        target, audio=options.audio, colour=options.colour, theme=options.theme
    )
    for reason in page.failures:
        print_error(reason)
    if options.json:
        print_json(
            {
                "output": str(target),
                "rows": len(layout),
                "method": layout.method,
                "columns": list(layout.columns),
                "audio": page.audio,
                "bytes": target.stat().st_size,
            }
        )
    else:
        print_line(
            f"{target}: {len(layout)} windows by {layout.method}, audio: {page.audio}, "
            f"{target.stat().st_size / 1e6:.1f} MB"
        )
    return report_failures(len(page.failures), len(layout))


RUNS: dict[str, Callable[[argparse.Namespace], int]] = {"lens": _lens, "plot": _plot, "map": _map}


def _targets(options: argparse.Namespace, ending: str) -> dict[str, Path]:
    """Where each file's picture goes, checked before the work."""
    files: Sequence[str] = options.files
    output = Path(options.output) if options.output else Path()
    if options.output and not output.is_dir():
        if len(files) > 1:
            raise OptionError(
                f"-o {output} for {len(files)} files: name a folder that is there, for one each"
            )
        _check(output, options)
        return {files[0]: output}
    stems = ["stdin" if file == "-" else PurePath(file).stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise OptionError(
                f"{stems.count(stem)} files called {stem} would be written to one: do one by one, "
                "each with -o"
            )
    targets = {file: output / f"{stem}.{ending}" for file, stem in zip(files, stems, strict=True)}
    for target in targets.values():
        _check(target, options)
    return targets


def _check(target: Path, options: argparse.Namespace) -> None:
    from qwen_audio.analysis.files import NUMBER_SUFFIXES, check_output_path
    from qwen_audio.analysis.plots.save import PLOT_SUFFIXES

    check_output_path(target, (*PLOT_SUFFIXES, *NUMBER_SUFFIXES))
    suffix = target.suffix.lower()
    if getattr(options, "html", False) and suffix != ".html":
        raise OptionError(f"--html and -o {target}: a page's name ends in .html")
    if suffix in NUMBER_SUFFIXES and (options.panels or options.theme):
        raise OptionError(f"--panels and --theme do nothing for {target}, which holds numbers")


def _write(thing: Plottable, target: Path, options: argparse.Namespace) -> str:
    from qwen_audio.analysis.files import NUMBER_SUFFIXES
    from qwen_audio.analysis.plots.save import save_plot

    if target.suffix.lower() in NUMBER_SUFFIXES:
        return str(thing.save(target))
    return str(save_plot(thing, target, options.panels, theme=options.theme or "light"))

"""`qwen-audio ablate`: which answers ignore the sound."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import AudioError, counted
from qwen_audio.paths import path_to_text

from .checks import check_files, check_windows
from .console import load_model, print_json, print_line, process_files
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_list_option,
    add_model_options,
    add_prompt_option,
    add_window_options,
    load_settings,
    window_settings,
)
from .progress import FileProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwen_audio.analysis.audio_ablation import AudioAblation
    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.waveform import Waveform

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "ablate",
        run,
        "Name the answers that ignore the sound: they are as likely with other sounds.",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_input_options(parser)
    add_list_option(
        parser, "--answer", "TEXT", "an answer to score (default: what the model answers)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the noise and the order (default: 0)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="all files in one table (.csv) or with facts (.json)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the verdict of every file, and write a table."""
    from qwen_audio.analysis.files import check_output_path
    from qwen_audio.errors import whole_number_option
    from qwen_audio.inference.options import check_prompt
    from qwen_audio.models.tap import Stage, Tap

    output = None
    if options.output:
        output = check_output_path(Path(options.output), (".csv", ".json"))
    check_prompt(options.prompt, [Tap(Stage.LM_NORM)])
    whole_number_option("seed", options.seed, 0, 2**63 - 1)
    check_windows(options)
    resolve_files(options)
    check_files(options.files)
    model = load_model(options)
    clips = _others(options, model)
    results: list[AudioAblation] = []

    def show(file: str, _: FileProgress) -> float:
        ablation = model.audio_ablation(
            file,
            options.prompt,
            answers=options.answer,
            others=list(clips) or None,
            seed=options.seed,
            **load_settings(options),
            **window_settings(options),
        )
        results.append(ablation)
        if options.json:
            facts = {**ablation.facts(), "rows": ablation.table()}
            print_json({"source": path_to_text(file), **facts})
        else:
            answers = " / ".join(dict.fromkeys(ablation.answers))
            print_line(f"{path_to_text(file)}: {ablation.summary}: {answers}")
        return ablation.windows[-1].end_seconds

    status = process_files(options.files, show, "ablate")
    if output is not None and results:
        _save(output, results)
        if not options.json:
            print_line(f"{output}: {len(results)} of {counted(len(options.files), 'file')}")
    return status


def _others(options: argparse.Namespace, model: AudioModel) -> Sequence[Waveform]:
    """Beginnings of the inputs that can be decoded, evenly spaced, and of the examples if these are
    few."""
    from qwen_audio.analysis.audio_ablation import MAX_OTHERS
    from qwen_audio.analysis.plots.panels import evenly_spaced
    from qwen_audio.api.audio_ablation import first_window, with_examples
    from qwen_audio.audio.load_options import LoadOptions
    from qwen_audio.audio.window import WINDOW_SECONDS

    load_options = LoadOptions(**load_settings(options))
    window_config = model.pipeline.window_config(
        **{"window_seconds": WINDOW_SECONDS, **window_settings(options)}
    )
    clips: list[Waveform] = []
    for place in evenly_spaced(len(options.files), MAX_OTHERS + 1):
        try:
            clips.append(first_window(options.files[place], load_options, window_config))
        except AudioError:  # named when its turn comes
            continue
    return clips if len(clips) > 3 else with_examples(clips, window_config)


def _save(output: Path, results: Sequence[AudioAblation]) -> None:
    import json

    from qwen_audio.analysis.files import atomic_write, csv_bytes, json_rows

    rows = json_rows(
        (
            {"source": result.name, "verdict": result.verdict, **row}
            for result in results
            for row in result.table()
        ),
        decimals=6,
    )
    if output.suffix.lower() == ".csv":
        atomic_write(output, lambda path: path.write_bytes(csv_bytes(rows)))
        return
    text = json.dumps([result.facts() for result in results], ensure_ascii=False, indent=1) + "\n"
    atomic_write(output, lambda path: path.write_text(text, encoding="utf-8"))

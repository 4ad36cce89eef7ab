"""Checks of options before torch is imported, so that mistakes are reported at once."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError, OptionError
from qwen_audio.paths import exists, is_folder, is_uri, path_from_text

from .options import EMBEDDED, window_settings

__all__ = [
    "check_embedding_options",
    "check_files",
    "check_model_options",
    "check_stdin",
    "check_windows",
]


def check_files(files: Sequence[str]) -> None:
    """Check that at least one file can be opened, and standard input is named once.

    Other missing files, and addresses that can't be opened, are reported when their turn comes, so
    that the rest is processed.

    Raises:
        OptionError: if - is there more than once.
        AudioError: if every file is missing or a folder.
    """
    check_stdin(files)
    paths = [path_from_text(file) for file in files]
    for path in paths:
        if path == "-" or is_uri(path) or (exists(path) and not is_folder(path)):
            return
    from qwen_audio.audio.decode import AudioDecoder

    try:
        AudioDecoder.from_path(paths[0]).close()
    except AudioError as error:
        none = f"none of {len(files)} files can be opened: " if len(files) > 1 else ""
        raise AudioError(f"{none}{error}") from error


def check_stdin(files: Sequence[str]) -> None:
    """Check that standard input, which can be read only once, is named once.

    Raises:
        OptionError: if - is there more than once.
    """
    if files.count("-") > 1:
        raise OptionError("- is given more than once, but standard input can be read only once")


def check_windows(options: argparse.Namespace, model: str | None = None, **defaults: Any) -> None:
    """Check --window and --hop; how long windows of other models may be, these say themselves.

    Args:
        model: which one it is where --model doesn't say, if it isn't the embedded one.
        defaults: `window_seconds`, where it isn't 30.

    Raises:
        OptionError: for lengths out of range.
    """
    from qwen_audio.audio.window import WindowConfig, WindowLimits

    is_embedded = (getattr(options, "model", None) or model) in (None, EMBEDDED)
    limits = WindowLimits() if is_embedded else WindowLimits(max_seconds=math.inf)
    WindowConfig(**{**defaults, **window_settings(options)}, limits=limits)


def check_embedding_options(
    tap: str, *, pooling: str = "mean", span: str = "audio", prompt: str | None = None
) -> None:
    """Check --tap, --pooling, --span and --prompt against each other.

    Raises:
        TapError: for a malformed tap.
        OptionError: for other unknown values, and for a span or prompt that the tap doesn't have.
    """
    from qwen_audio.inference.options import check_pooling, check_prompt, check_span
    from qwen_audio.models.tap import Tap

    parsed = Tap.parse(tap)
    check_pooling(pooling)
    check_span(span, parsed)
    check_prompt(prompt, [parsed])


def check_model_options(options: argparse.Namespace) -> None:
    """Check the form of --model, --adapter, --dtype, --quantize and --max-memory.

    Raises:
        OptionError: for another dtype, quantisation or size.
        CheckpointError: for a model or an adapter that is neither a folder nor the name of a hub
            model.
    """
    from qwen_audio.weights.download import check_adapter_name, check_repo_name
    from qwen_audio.weights.option_values import check_dtype, check_quantize, resolve_bytes

    if options.dtype is not None:
        check_dtype(options.dtype)
    if options.quantize is not None:
        check_quantize(options.quantize)
    resolve_bytes(options.max_memory)
    model = options.model
    if model not in (None, EMBEDDED) and not is_folder(Path(model).expanduser()):
        check_repo_name(model)
    if options.adapter is not None:
        check_adapter_name(options.adapter)

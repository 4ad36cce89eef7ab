"""A checkpoint with quantised weights in a folder of its own, which is loaded by name."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from qwen_audio.analysis.files import check_output_folder, write_errors
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.errors import AudioWarning, CheckpointError, OptionError, counted
from qwen_audio.inference.calibration import Calibration, caption_rows
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.progress_bars import (
    OnProgress,
    download_bar,
    shows_progress,
    with_progress,
)
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.compressed_config import compressed_config
from qwen_audio.models.processor_files import PROCESSOR_FILES
from qwen_audio.models.tensors import LM_HEAD
from qwen_audio.paths import exists, is_folder
from qwen_audio.weights.compressed_tensors import split_matrices
from qwen_audio.weights.download import ProgressCallback
from qwen_audio.weights.json_file import parse_json
from qwen_audio.weights.option_values import check_quantize
from qwen_audio.weights.quantization import LinearFormat
from qwen_audio.weights.quantized_store import module_prefix, quantize_module, write_safetensors

from .model import load

__all__ = ["quantize_checkpoint"]

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
_OTHER_FILES, _LICENSE = (*PROCESSOR_FILES, "generation_config.json"), "LICENSE"
_FILE_BYTES = 1 << 30
"""Of a weights file, about: what is in memory before it is written."""


def quantize_checkpoint(
    model: str | Path,
    out: str | Path,
    *,
    quantize: str = "int4",
    calibrate: AudioInput | AudioInputs | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    force: bool = False,
    on_download: ProgressCallback | None = None,
    on_quantize: ProgressCallback | None = None,
    on_progress: OnProgress | None = None,
    progress: bool | None = None,
) -> Path:
    """Write a checkpoint with quantised weights to a folder: `load` takes it as it is, without
    `quantize`. Without `calibrate` it computes the same numbers as the checkpoint with `quantize`.

    The folder is complete, with the processor, and in the format compressed-tensors, which
    transformers and other programs read. It appears when all of it is written.

    Args:
        model: "embedded", a folder, or a hub model.
        out: the folder to write.
        quantize: "int8", "int4" or "int4-g128": see `load`.
        calibrate: recordings that the checkpoint captions first: 4-bit weights of the language
            model are then rounded so that what they compute of these changes least (GPTQ). Thirty
            or more, like those that it will be used for; `qwen_audio.find_files` lists a folder's.
        revision: branch, tag or commit of a hub model.
        adapter: a LoRA adapter that is merged before.
        force: replace a checkpoint that is in `out`.
        on_download: called with bytes downloaded and bytes to download.
        on_quantize: called with bytes of weights quantised and to be quantised.
        on_progress: called with recordings captioned for `calibrate`, and to be captioned.
        progress: whether progress bars show these, where the functions aren't given; by default in
            notebooks only.

    Returns:
        The folder.

    Raises:
        AudioError: for a recording of `calibrate` that can't be decoded.
        CheckpointError: if the checkpoint can't be read, or the disk can't hold the result.
        OptionError: if something is in `out`, it can't be written to, or the checkpoint is stored
            quantised already, or has parts that aren't read; for `calibrate` without recordings, or
            with "int8".
    """
    target = Path(out).expanduser()
    target = target if target.name else target.resolve()  # "." and ".."
    _check_target(target, force)
    recordings = None if calibrate is None else _calibration_recordings(calibrate, quantize)
    checkpoint = Checkpoint(model, revision, adapter, quantize)
    if checkpoint.family.ignored_names:
        raise OptionError(
            f"{checkpoint.name}: {checkpoint.family.title} has parts that aren't read here, and "
            "other programs can't load it without: give the option quantize where it is used"
        )
    if target.resolve() == checkpoint.folder.resolve():
        raise OptionError(f"{target} is what is to be quantised: name another folder")
    files = _plan_files(checkpoint)
    _check_space(target, sum(sum(modules.values()) for modules in files))
    report = on_download or download_bar(progress)
    checkpoint.tensors.fetch(checkpoint.required_tensors(None), report)
    calibration = None
    if recordings is not None:
        original = load(model, revision=checkpoint.commit, adapter=adapter, progress=progress)
        calibration = _calibration(
            original.pipeline, recordings, shows_progress(progress), on_progress
        )
    partial, previous = (target.with_name(target.name + end) for end in (".partial", ".previous"))
    with write_errors(target):
        _remove(partial)
        partial.mkdir(parents=True)
        try:
            _copy_files(checkpoint, partial)
            report = on_quantize or download_bar(progress, "quantising weights")
            uncalibrated = _write_weights(checkpoint, files, partial, calibration, report)
            # At last: what has no config.json is no checkpoint.
            config = _config(checkpoint, quantize, calibration, len(uncalibrated))
            text = json.dumps(config, indent=2)
            (partial / _CONFIG).write_text(text + "\n", encoding="utf-8")
            if exists(target):
                _remove(previous)
                target.rename(previous)
            partial.rename(target)
        finally:
            _remove(partial)
        _remove(previous)
    if uncalibrated:
        matrices = counted(len(uncalibrated), "matrix", "matrices")
        message = f"{matrices} (such as {uncalibrated[0]}), which are rounded to nearest"
        warnings.warn(f"no calibration reaches {message}: give more recordings", AudioWarning, 2)
    return target


def _check_target(target: Path, force: bool) -> None:
    """Raises OptionError if the folder can't be written, or holds what may not be replaced."""
    check_output_folder(target.parent)
    if not exists(target) or (is_folder(target) and not any(target.iterdir())):
        return
    if not force:
        raise OptionError(f"{target} exists: name another folder, or replace it with force=True")
    if not (target / _CONFIG).is_file():
        raise OptionError(f"{target} is no checkpoint, and force=True replaces nothing else")


def _calibration_recordings(calibrate: AudioInput | AudioInputs, quantize: str) -> list[AudioInput]:
    """Raises OptionError if nothing is rounded for them, or there are none."""
    check_quantize(quantize)
    if quantize == "int8":
        raise OptionError(
            "calibrate= changes how weights are rounded to 4 bits, and int8 has none: leave it "
            "out, or use quantize='int4'"
        )
    recordings, _ = as_input_list(calibrate)
    if not recordings:
        raise OptionError("calibrate= has no recordings: give some, or leave it out")
    return recordings


def _calibration(
    pipeline: Pipeline,
    recordings: Sequence[AudioInput],
    progress: bool,
    on_progress: OnProgress | None,
) -> Calibration:
    rows = with_progress(
        lambda on_window: caption_rows(pipeline, recordings, on_window),
        progress,
        len(recordings),
        "captioning",
        on_progress,
    )
    return Calibration(pipeline, [window for windows in rows for window in windows])


def _plan_files(checkpoint: Checkpoint) -> list[dict[str, int]]:
    """For each weights file the modules in it, with their sizes."""
    sizes: Counter[str] = Counter()
    for name in checkpoint.required_tensors(None):
        sizes[module_prefix(name)] += checkpoint.stored_bytes(name)
    files: list[dict[str, int]] = [{}]
    for prefix, size in sizes.items():
        if files[-1] and sum(files[-1].values()) + size > _FILE_BYTES:
            files.append({})
        files[-1][prefix] = size
    return files


def _check_space(target: Path, needed: int) -> None:
    folder = next(parent for parent in target.absolute().parents if exists(parent))
    if needed > (free := shutil.disk_usage(folder).free):
        raise CheckpointError(
            f"{target}: the quantised checkpoint takes {needed} bytes, but {folder} has {free} "
            "bytes free: free disk space, or name a folder on a larger disk"
        )


def _copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the files beside weights and config.json."""
    for name in _OTHER_FILES:
        if (path := checkpoint.file(name)) is not None:
            shutil.copyfile(path, folder / name)
    with suppress(CheckpointError):  # of a hub that can't be reached
        if (path := checkpoint.file(_LICENSE)) is not None:
            shutil.copyfile(path, folder / _LICENSE)


def _write_weights(
    checkpoint: Checkpoint,
    files: list[dict[str, int]],
    folder: Path,
    calibration: Calibration | None,
    report: ProgressCallback | None,
) -> list[str]:
    """Write the weights, quantised, and their index; one module is quantised at a time.

    Returns:
        The matrices in 4 bits that no inputs were known of, in spite of calibration.
    """
    tensors, formats = checkpoint.tensors, _formats(checkpoint)
    read: Counter[str] = Counter()
    for name in checkpoint.required_tensors(None):
        read[module_prefix(name)] += tensors.stored_bytes(name, checkpoint.dtype)
    done, total = 0, read.total()
    file_of: dict[str, str] = {}
    known: set[str] = set()
    size = 0
    for number, prefixes in enumerate(files, 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        parts: dict[str, torch.Tensor] = {}
        for prefix in prefixes:
            if report is not None:
                report(done, total)
            inputs = None if calibration is None else calibration.of_module(prefix)
            known |= {prefix + name for name in inputs or ()}
            weights = quantize_module(tensors.read(prefix), prefix, formats, inputs)
            parts |= {prefix + name: part for name, part in split_matrices(weights).items()}
            done += read[prefix]
        write_safetensors(folder / file, parts)
        file_of |= dict.fromkeys(parts, file)
        size += sum(part.nbytes for part in parts.values())
    index = {"metadata": {"total_size": size}, "weight_map": file_of}
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file in set(file_of.values()):  # safetensors writes files that only their owner may read
        shutil.copymode(folder / _INDEX, folder / file)
    if report is not None:
        report(total, total)
    if calibration is None:
        return []
    return [name for name, form in formats.items() if form.bits == 4 and name not in known]


def _config(
    checkpoint: Checkpoint, quantize: str, calibration: Calibration | None, uncalibrated: int
) -> dict[str, Any]:
    """The content of config.json."""
    config = parse_json(checkpoint.folder / _CONFIG)
    requirements = checkpoint.required_tensors(None)
    text = config.setdefault("text_config", {})
    text["vocab_size"] = requirements[LM_HEAD].shape[0]
    # Quantised, the head is a matrix of its own.
    config["tie_word_embeddings"] = text["tie_word_embeddings"] = False
    for part in (config, text, config.get("audio_config") or {}):
        for key in ("quantization_config", "compression_config"):
            part.pop(key, None)
    linears = {
        name: requirement.shape
        for name, requirement in requirements.items()
        if len(requirement.shape) == 2 and (requirement.rows_per_second or name == LM_HEAD)
    }
    config["quantization_config"] = compressed_config(linears, _formats(checkpoint))
    config["quantized_from"] = {
        "model": checkpoint.name if checkpoint.commit else Path(checkpoint.name).name,
        "revision": checkpoint.revision,
        "adapter": checkpoint.adapter_hash,
        "quantize": quantize,
        "calibration_positions": None if calibration is None else calibration.positions,
        "uncalibrated_matrices": None if calibration is None else uncalibrated,
    }
    return config


def _formats(checkpoint: Checkpoint) -> dict[str, LinearFormat]:
    return {} if checkpoint.quantized is None else checkpoint.quantized.formats


def _remove(folder: Path) -> None:
    if exists(folder):
        shutil.rmtree(folder)

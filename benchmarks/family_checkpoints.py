"""Checkpoints with a released model's widths, mostly of holes.

Their safetensors file has a header of all tensors, and values of a few or none. What is between
these takes no space on the disk, and is read as zeros.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from .released_models import Fields, ReleasedModel
from .rounds import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from checkpoints import randomise
from families import CASES, Case

__all__ = ["CASES", "FamilyCheckpoint", "FamilyCheckpoints", "write_family"]

_FILE = "model.safetensors"
_ITEM_BYTES = 2


@dataclass(frozen=True)
class FamilyCheckpoint:
    """A checkpoint, and what the sizes of transformers' parameters imply.

    Attributes:
        folder: of the checkpoint.
        tap_bytes: of what each tap needs, in 16 bits; "text" for all.
        parameters: of all that is used.
    """

    folder: Path
    tap_bytes: Mapping[str, int]
    parameters: int


@dataclass(frozen=True)
class FamilyCheckpoints:
    """A family's checkpoints with a released model's widths.

    Attributes:
        whole: with all layers, and holes for all values.
        two_layers: with two layers each, and the values of the encoder.
        peer: folder of one with that encoder and a tiny language model, as transformers writes it.
    """

    whole: FamilyCheckpoint
    two_layers: FamilyCheckpoint
    peer: Path


def write_family(work: Path, model_type: str, released: ReleasedModel | None) -> FamilyCheckpoints:
    """Write a family's checkpoints to a folder.

    Args:
        released: whose sizes they have, instead of those of the tests' tiny checkpoint.
    """
    case, folders = CASES[model_type], [work / name for name in ("peer", "two_layers", "whole")]
    peer, *others = folders
    peer.mkdir(parents=True)
    case.write(peer)
    for file in peer.glob("*.safetensors*"):
        file.unlink()
    settings = _read_json(peer / "config.json") | {"dtype": "bfloat16"}
    if released is not None:
        settings = _changed(settings, released.encoder)
        _set_mel_bins(peer, released)
    for folder in others:
        shutil.copytree(peer, folder)
    model = _model(case, settings)
    randomise(model, torch.Generator().manual_seed(0))
    model.to(torch.bfloat16).save_pretrained(peer)

    written = []
    for folder, changes in zip(others, ("language_model", "layers"), strict=True):
        settings = settings if released is None else _changed(settings, getattr(released, changes))
        with torch.device("meta"):
            model = _model(case, settings)
        model.config.save_pretrained(folder)
        used = _Used(case, model)
        tensors = remove_tied_weights_from_state_dict(dict(model.state_dict()), model)
        tower = {name: each for name, each in model.named_parameters() if id(each) in used.tower}
        stored, encoder = (revert_weight_conversion(model, each) for each in (tensors, tower))
        values = peer / _FILE if changes == "language_model" else None
        _write_file(folder / _FILE, stored, values, encoder)
        written.append(FamilyCheckpoint(folder, used.tap_bytes, used.count))
    two_layers, whole = written
    return FamilyCheckpoints(whole, two_layers, peer)


class _Used:
    """The parameters of transformers' model that each tap needs."""

    def __init__(self, case: Case, model: Any) -> None:
        root = getattr(model, "thinker", model)  # of a whole model, with parts that speak

        def parameters(*names: str) -> dict[int, nn.Parameter]:
            modules = [root.get_submodule(name) for name in names if name]
            return {id(each): each for module in modules for each in module.parameters()}

        projector = parameters(case.projector, case.projector_end)
        in_tower = parameters(case.tower)
        tower = {key: each for key, each in in_tower.items() if key not in projector}
        self.tower = set(tower)
        needed = {"audio_tower": tower}
        if case.language_model:
            layers = f"{case.language_model}.layers"
            table = parameters(f"{case.language_model}.embed_tokens")
            needed["projector"] = needed["audio_tower"] | projector
            needed["lm.1"] = needed["projector"] | parameters(f"{layers}.0")
            head = parameters("lm_head")
            text = parameters(layers, f"{case.language_model}.norm") | head
            needed["text"] = needed["projector"] | text
            everything = needed["text"] | table
        else:
            everything = tower
        self.tap_bytes = {tap: _ITEM_BYTES * _count(each.values()) for tap, each in needed.items()}
        self.count = _count(everything.values())


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _model(case: Case, settings: Mapping[str, Any]) -> Any:
    model_class: Any = getattr(transformers, case.stored_class or case.model_class)
    return model_class(model_class.config_class.from_dict(copy.deepcopy(dict(settings))))


def _read_json(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


def _changed(settings: Mapping[str, Any], changes: Fields) -> dict[str, Any]:
    """A copy of a config.json with other values of fields. Raises KeyError for one it hasn't."""
    changed = copy.deepcopy(dict(settings))
    for place, fields in changes.items():
        part = changed
        for name in filter(None, place.split(".")):
            part = part[name]
        if unknown := fields.keys() - part.keys():
            raise KeyError(f"{place or 'config.json'} has no {', '.join(sorted(unknown))}")
        part |= fields
    return changed


def _set_mel_bins(folder: Path, released: ReleasedModel) -> None:
    """In the settings of the feature extractor."""
    (bins,) = {part["num_mel_bins"] for part in released.encoder.values()}
    for file in folder.glob("*processor_config.json"):
        settings = _read_json(file)
        settings.get("feature_extractor", settings)["feature_size"] = bins
        file.write_text(json.dumps(settings), encoding="utf-8")


def _write_file(
    path: Path, tensors: Mapping[str, Tensor], values: Path | None, names: Iterable[str]
) -> None:
    """A safetensors file in bfloat16 of holes, with the values of tensors `names` of another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + _ITEM_BYTES * tensor.numel()
        shape = list(tensor.shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        file.truncate(start + offset)
        if values is None:
            return
        with safe_open(values, "pt") as source:
            for name in names:
                file.seek(start + header[name]["data_offsets"][0])
                file.write(source.get_tensor(name).view(torch.uint8).numpy().data)

"""A checkpoint on disk or on a hub: checked whole, read in part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from .configuration import is_name, parse_json, read_config
from .errors import CheckpointError
from .hub import HubFiles
from .layout import EMBEDDINGS, Needed, needed_tensors
from .mel import check_extractor
from .scratch import Scratch
from .shards import (
    Located,
    Slot,
    check_dtype,
    read_header,
    read_rows,
    read_tensors,
    samples_of_tensors,
)
from .tap import Geometry, Tap
from .transfer import Report

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

__all__ = ["EMBEDDED", "Checkpoint"]

EMBEDDED = "embedded"
"""The name of the checkpoint that ships with the package."""

_FOLDER_OF_EMBEDDED = Path(__file__).parent / "embedded"
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


class Checkpoint:
    """One Qwen2-Audio checkpoint; opening it reads configuration and headers, no weights.

    Args:
        source: "embedded", a folder, or a hub's "owner/name".
        revision: branch, tag or commit of a hub model.

    Raises:
        CheckpointError: if it isn't there, isn't Qwen2-Audio, or its tensors are not exactly those
            that its configuration asks for (missing, left over or of the wrong shape).
    """

    def __init__(self, source: str | Path = EMBEDDED, revision: str | None = None) -> None:
        if not isinstance(source, str | Path) or not str(source):
            raise CheckpointError(
                f"{source!r} is no checkpoint: give 'embedded', a folder, or a hub's 'owner/name'"
            )
        self.name = str(source)
        self._hub: HubFiles | None = None
        folder = _FOLDER_OF_EMBEDDED if self.name == EMBEDDED else Path(source).expanduser()
        if not folder.is_dir():
            self._hub = HubFiles.of(self.name, revision)
            folder = self._hub.folder
        elif revision is not None:
            raise CheckpointError(
                f"revision={revision!r} was given with {self.name}, which is a folder: "
                "revisions belong to hub models, leave it out"
            )
        self.folder = folder
        self.config = read_config(folder, self.name)
        self.audio_config = cast(Any, self.config.audio_config)
        self.text_config = cast(Any, self.config.text_config)
        self.geometry = Geometry.of(self.config)
        self._needed = dict(needed_tensors(self.config))
        self._headers: dict[str, dict[str, Slot]] = {}
        self._file_of = self._weight_map()
        self._check_names()
        if self._hub is None:
            for file in sorted(set(self._file_of.values())):
                self._header(file)

    @cached_property
    def revision(self) -> str:
        """A commit of the hub; for a folder a digest of its config and samples of every tensor."""
        if self._hub is not None:
            return self._hub.commit
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for file in sorted(set(self._file_of.values())):
            for sample in samples_of_tensors(self.folder / file):
                digest.update(sample)
        return digest.hexdigest()[:40]

    @property
    def dtype(self) -> torch.dtype:
        """In which numbers its weights are stored, as config.json says."""
        return getattr(self.config, "dtype", None) or torch.float32

    @cached_property
    def extractor(self) -> WhisperFeatureExtractor:
        """transformers' feature extractor, as preprocessor_config.json sets it."""
        from transformers import WhisperFeatureExtractor

        settings = self._json("preprocessor_config.json")
        try:
            extractor = WhisperFeatureExtractor(**settings)
        except Exception as error:  # whatever its arithmetic makes of them
            raise CheckpointError(
                f"{self.name}: preprocessor_config.json is not valid ({error}): download it again"
            ) from error
        check_extractor(extractor, self.geometry.mel_bins)
        return extractor

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json; empty where the checkpoint has none."""
        return self._json("generation_config.json", optional=True)

    def file(self, name: str) -> Path | None:
        """A file of the checkpoint that isn't weights (fetched if it is on a hub), or None."""
        if self._hub is not None:
            self._hub.fetch(name, optional=True)
        path = self.folder / name
        return path if path.is_file() else None

    def needs(self, tap: Tap | None) -> dict[str, Needed]:
        """The tensors that `tap` needs, by name: everything left of it, nothing right of it.

        None stands for text: all of them, the language model's head included.
        """
        return {
            name: needed
            for name, needed in self._needed.items()
            if tap is None or (needed.tap is not None and needed.tap <= tap)
        }

    def stored_bytes(self, name: str) -> int:
        """How long a tensor is on disk: by its shard's header, or, where a hub's server reads out
        no headers, by the configuration's dtype."""
        header = self._header(self._file_of[name])
        if header is None:
            return math.prod(self._needed[name].shape) * self.dtype.itemsize
        return header[name].bytes

    def missing_bytes(self, tap: Tap | None) -> int:
        """What `bring` would have to move from a hub."""
        return 0 if self._hub is None else self._hub.missing(self._by_file(self._whole(tap)))

    def bring(self, tap: Tap | None, report: Report | None = None) -> None:
        """Have on this machine what `tap` needs: before a forward, so that all comes at once.

        Of the table of embeddings taps need rows alone, which `rows` fetches; text needs it all.

        Raises:
            CheckpointError: if a hub can't give it, or gives what is not this checkpoint's.
        """
        if self._hub is not None:
            wanted = self._by_file(self._whole(tap))
            for file in wanted:
                self._header(file)
            self._hub.bring(wanted, report)

    def read(
        self,
        prefix: str,
        *,
        pinned: bool = False,
        scratch: Scratch | None = None,
        convert: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The tensors whose names start with `prefix`, and no others; names without the prefix.

        See `read_tensors` for the options.
        """
        located = self._located(name for name in self._needed if name.startswith(prefix))
        tensors = read_tensors(located, pinned=pinned, scratch=scratch, convert=convert)
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}

    def rows(self, ids: Sequence[int]) -> list[torch.Tensor]:
        """The embeddings of single tokens, each of shape (lm width,), read one by one.

        Raises:
            CheckpointError: for a token that the table has no row for.
        """
        table = self._needed[EMBEDDINGS].shape[0]
        if beyond := [row for row in ids if not 0 <= row < table]:
            raise CheckpointError(
                f"{self.name}: its tokenizer gives token {beyond[0]}, but its table of embeddings "
                f"has {table} rows: tokenizer and weights don't belong together"
            )
        file = self._file_of[EMBEDDINGS]
        if self._hub is not None and EMBEDDINGS not in self._hub.held(file):
            self._header(file)
            found = self._hub.bring_rows(file, EMBEDDINGS, ids)
            return [found[row] for row in ids]
        return read_rows(self._located([EMBEDDINGS])[EMBEDDINGS], ids, EMBEDDINGS)

    def _whole(self, tap: Tap | None) -> list[str]:
        """Tensors that a tap needs all of."""
        return [name for name in self.needs(tap) if tap is None or name != EMBEDDINGS]

    def _by_file(self, names: Iterable[str]) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        for name in names:
            files.setdefault(self._file_of[name], []).append(name)
        return files

    def _located(self, names: Iterable[str]) -> dict[str, Located]:
        """Where tensors lie on this machine, brought here if they weren't."""
        located: dict[str, Located] = {}
        for file, mine in self._by_file(names).items():
            slots = self._header(file) or {}
            if self._hub is None:
                held = {name: Located(self.folder / file, slot) for name, slot in slots.items()}
            elif not set(mine) <= (held := self._hub.held(file)).keys():
                self._hub.bring({file: mine})
                held = self._hub.held(file)
            located |= {name: held[name] for name in mine}
        return located

    def _weight_map(self) -> dict[str, str]:
        """Tensor name → file, from the index, or from the header of the only file."""
        if (index := self.file(_INDEX)) is not None:
            files = parse_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(is_name(file) for file in files.values()):
                raise CheckpointError(
                    f"{self.name}: {_INDEX} has no weight_map of tensors and files beside it: "
                    "download it again"
                )
            return files
        slots: dict[str, Slot] | None = None
        if self._hub is not None:
            slots = self._hub.header(_SINGLE, optional=True)
            if slots is None:  # there is no such file, or no reading a part of it
                self._hub.fetch(_SINGLE, optional=True)
        if slots is None and not (self.folder / _SINGLE).is_file():
            raise CheckpointError(
                f"{self.name} holds neither {_INDEX} nor {_SINGLE}: "
                "weights are read from safetensors only"
            )
        return dict.fromkeys(slots or read_header(self.folder / _SINGLE), _SINGLE)

    def _check_names(self) -> None:
        missing = sorted(self._needed.keys() - self._file_of.keys())
        extra = sorted(self._file_of.keys() - self._needed.keys())
        for names, what in ((missing, "lacks"), (extra, "holds, beyond what its config asks for,")):
            if names:
                raise CheckpointError(
                    f"{self.name} {what} {len(names)} tensor{'s' * (len(names) != 1)}, "
                    f"{', '.join(names[:3])}{' …' * (len(names) > 3)}: "
                    "it is not the checkpoint of this config.json; download it again"
                )

    def _header(self, file: str) -> dict[str, Slot] | None:
        """Where a shard's tensors lie in it, held once against index and configuration.

        None where only fetching it whole would tell.
        """
        if file not in self._headers:
            place = self.folder / file
            if self._hub is not None and not place.is_file():
                slots = self._hub.header(file)
            elif place.is_file():
                slots = read_header(place)
            else:
                raise CheckpointError(f"{self.name} lacks its shard {file}: download it again")
            if slots is None:
                return None
            self._check_header(file, slots)
            self._headers[file] = slots
        return self._headers[file]

    def _check_header(self, file: str, slots: dict[str, Slot]) -> None:
        promised = {name for name, at in self._file_of.items() if at == file}
        if slots.keys() != promised:
            odd = sorted(slots.keys() ^ promised)
            raise CheckpointError(
                f"{self.name}: shard {file} and the index disagree on {odd[0]}"
                f"{f' and {len(odd) - 1} more' if len(odd) > 1 else ''}: download it again"
            )
        for name, slot in slots.items():
            wanted = self._needed[name].shape
            if slot.shape != wanted:
                raise CheckpointError(
                    f"{self.name}: tensor {name} has shape {slot.shape}, but its config asks for "
                    f"{wanted}: config.json and weights don't belong together"
                )
            check_dtype(slot, f"{self.name}: tensor {name}")

    def _json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        path = self.file(name)
        if path is None:
            if optional:
                return {}
            raise CheckpointError(f"{self.name} lacks {name}: download the whole checkpoint")
        return parse_json(path)

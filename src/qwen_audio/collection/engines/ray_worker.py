"""What runs on a worker of a Ray cluster: its model, and the encoding of blocks of sources."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.source import Source
from qwen_audio.collection.encoding import (
    EncodedRecording,
    EncodingSettings,
    PendingSource,
    encode_sources,
)
from qwen_audio.errors import AudioError, CollectionError, OptionError, QwenAudioError, counted
from qwen_audio.inference.embedding_spec import spec_differences
from qwen_audio.paths import is_folder, printable

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["EncodingWorker", "ModelLoader"]

_SHARE_OF_MEMORY = 0.9
"""Of what a worker may take: as `load` takes of what is free."""


@dataclass(frozen=True)
class ModelLoader:
    """Loads the model of a worker, with the worker's share of its machine.

    Attributes:
        name: of the checkpoint.
        options: of `load`.
        cpus: threads that compute.
        gpus: that the worker has, or the part of one; 0: it computes on CPUs.
    """

    name: str
    options: Mapping[str, Any]
    cpus: int
    gpus: float

    @classmethod
    def of_model(cls, model: AudioModel, cpus: int, gpus: float) -> ModelLoader:
        """For workers that have the same model.

        Raises:
            OptionError: for a model that was loaded on a device that the workers don't have.
        """
        options = dict(model.load_options)
        kind = str(options["device"] or "").partition(":")[0]
        if kind and (kind == "cuda") != bool(gpus):
            has = f"{gpus:g} GPU" if gpus else "none: give gpus_per_worker"
            raise OptionError(
                f"the model was loaded with device={options['device']!r}, but a worker has {has}; "
                "or load it without device="
            )
        options |= {"device": "cuda" if gpus else "cpu", "progress": False}
        adapter = options["adapter"]
        if adapter is not None:
            options["adapter"] = _absolute(str(adapter))
        return cls(_absolute(model.name), options, cpus, gpus)

    def load(self) -> AudioModel:
        """The model."""
        import torch

        from qwen_audio.api.model import load

        torch.set_num_threads(self.cpus)
        options = dict(self.options)
        if options["max_memory"] is None:
            options["max_memory"] = self._memory_bytes()
        return load(self.name, **options)

    def _memory_bytes(self) -> int | None:
        """What this worker may take beside the others of its machine; None for a whole GPU."""
        import psutil
        import ray
        import torch

        from qwen_audio.inference.cost import process_bytes
        from qwen_audio.weights.device import available_bytes

        if self.gpus >= 1:
            return None
        device = torch.device("cuda" if self.gpus else "cpu")
        if self.gpus:
            total = torch.cuda.get_device_properties(device).total_memory
            return round(_SHARE_OF_MEMORY * self.gpus * total)
        node_id = ray.get_runtime_context().get_node_id()
        (resources,) = [n["Resources"] for n in ray.nodes() if n["NodeID"] == node_id]
        share = min(1.0, self.cpus / resources["CPU"])
        free = min(share * psutil.virtual_memory().total, available_bytes(device))
        return process_bytes(device) + round(_SHARE_OF_MEMORY * free)


def _absolute(name: str) -> str:
    """The name of a checkpoint as other processes on this machine know it."""
    return str(Path(name).expanduser().absolute()) if is_folder(name) else name


class EncodingWorker:
    """An actor of an index operation; its model is loaded when it is opened."""

    def __init__(self, loader: ModelLoader, settings: EncodingSettings) -> None:
        # Whether a model overflows for all recordings is decided where all results are.
        self._loader, self._settings = loader, replace(settings, is_proven=True)

    def started(self) -> None:
        """Its result is there once Ray has found room for it."""

    def open(self, sample: Sequence[PendingSource]) -> tuple[str, QwenAudioError | None]:
        """Load the model.

        Returns:
            The address of the machine, and what is wrong with its model or its view of sources.
        """
        import ray

        return str(ray.util.get_node_ip_address()), self._opening_error(sample)

    def _opening_error(self, sample: Sequence[PendingSource]) -> QwenAudioError | None:
        spec = self._settings.spec
        try:
            model = self._model
            differences = spec_differences(spec, model.spec(**spec.options))
        except QwenAudioError as error:
            return error
        if differences:
            return CollectionError(
                f"its model gives vectors of another embedding spec: {differences}: use the same "
                "checkpoint on all machines"
            )
        for item in sample:
            try:
                size_bytes, _ = item.source.stat()
            except AudioError as error:
                return _unseen(item.source, str(error))
            if size_bytes != item.version.size_bytes:
                return _unseen(item.source, f"it has {counted(size_bytes, 'byte')} there")
        return None

    def encode(
        self, block: Sequence[PendingSource]
    ) -> list[EncodedRecording | AudioError] | QwenAudioError:
        """The rows of each source of a block, or why it has none; or what ends the run."""
        try:
            return [result for _, result in encode_sources(self._model, self._settings, block)]
        except QwenAudioError as error:
            return error

    @functools.cached_property
    def _model(self) -> AudioModel:
        return self._loader.load()


def _unseen(source: Source, reason: str) -> OptionError:
    return OptionError(
        f"it doesn't see {printable(source.path)} as this machine does ({reason}): put recordings "
        "where all machines have them under one name, such as a shared folder, or a bucket"
    )

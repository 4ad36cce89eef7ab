"""Checkpoints that are stored quantised: what config.json says of it, and what can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.weights.adapter import Adapter
from qwen_audio.weights.json_file import parse_json
from qwen_audio.weights.matrix_layout import MatrixLayout

from .quantization_methods import METHODS, QuantizationMethod
from .tensors import EMBEDDINGS, LM_HEAD

__all__ = ["StoredQuantization", "read_stored_quantization"]

_LABELS = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bnb": "bitsandbytes",
    "ct": "compressed-tensors",
    "fp8": "8-bit floats (FP8)",
    "fbgemm_fp8": "8-bit floats (FP8)",
    "hqq": "HQQ",
}


@dataclass(frozen=True)
class StoredQuantization:
    """How the matrices of a checkpoint are stored, as its config.json says.

    Attributes:
        checkpoint: its name, for error messages.
        canonical_name: of a tensor in a file: see `Family`.
        method: with the settings that config.json states; None if it states no quantisation.
    """

    checkpoint: str
    canonical_name: Callable[[str], str]
    method: QuantizationMethod | None

    def layouts(
        self, shapes: Mapping[str, tuple[int, ...]], stored: Collection[str]
    ) -> dict[str, MatrixLayout]:
        """The layouts of the matrices that are stored quantised, by name.

        Args:
            shapes: of all tensors.
            stored: names in the files.

        Raises:
            CheckpointError: for one that can't be read.
        """
        if self.method is None:
            return {}
        others = {name for name in shapes if not name.endswith(".weight")}
        names = {self.canonical_name(name) for name in stored} - others
        found: dict[str, MatrixLayout] = {}
        for name, shape in shapes.items():
            if len(shape) == 2 and name.endswith(".weight") and name != EMBEDDINGS:
                module = name.removesuffix(".weight")
                try:
                    layout = self.method.layout(module, (shape[0], shape[1]), names)
                except ValueError as error:
                    raise _unreadable(self.checkpoint, self.method.name, str(error)) from error
                if layout is not None:
                    found[name] = layout
        return found

    def spec(self, layouts: Mapping[str, MatrixLayout]) -> str | None:
        """What decides the numbers, such as "gptq-int4-g128"; None if nothing is quantised."""
        kinds: dict[str, Counter[str]] = {}
        for name, layout in layouts.items():
            part = "head" if name == LM_HEAD else "encoder" if name.startswith("audio_") else ""
            kinds.setdefault(part, Counter())[layout.kind] += layout.rows * layout.columns
        names = {part: counts.most_common(1)[0][0] for part, counts in kinds.items()}
        if not names or self.method is None:
            return None
        first = names.get("") or next(iter(names.values()))
        others = [
            f"+{part}-{names[part]}"
            for part in ("head", "encoder")
            if names.get(part, first) != first
        ]
        return f"{self.method.name}-{first}{''.join(others)}"

    def check_options(
        self,
        layouts: Mapping[str, MatrixLayout],
        adapter: Adapter | None,
        quantize: str | None,
    ) -> None:
        """Check options of `Checkpoint` that change weights.

        Raises:
            CheckpointError: for an adapter of matrices that stay quantised.
            OptionError: for `quantize` where there are any.
        """
        kept = {name for name, layout in layouts.items() if layout.form is not None}
        if not kept:
            return
        stored = f"{self.checkpoint} is stored quantised ({self.spec(layouts)})"
        if quantize is not None:
            raise OptionError(
                f"{stored}: leave quantize={quantize!r} out, or give the checkpoint that it was "
                "made from"
            )
        if adapter is not None and kept & adapter.changed:
            raise CheckpointError(
                f"{stored}, so that {adapter.name} can't be merged into it: give the checkpoint "
                "that it was made from, with adapter= and quantize="
            )


def read_stored_quantization(
    folder: Path, name: str, canonical_name: Callable[[str], str]
) -> StoredQuantization:
    """How a checkpoint's matrices are stored, from its config.json.

    Args:
        folder: of its files.
        name: for error messages.
        canonical_name: see `StoredQuantization`.

    Raises:
        CheckpointError: for a method, or settings of one, that can't be read.
    """
    settings = parse_json(folder / "config.json")
    for part in (settings, settings.get("text_config"), settings.get("audio_config")):
        for key in ("quantization_config", "compression_config"):
            stated = part.get(key) if isinstance(part, Mapping) else None
            if not isinstance(stated, Mapping) or not stated:
                continue
            method = str(stated.get("quant_method") or "bitsandbytes").lower()
            method = "bitsandbytes" if method.startswith("bitsandbytes") else method
            if (reader := METHODS.get(method)) is None:
                raise _unreadable(
                    name,
                    method,
                    advice=f" (or, if its weights are such, delete {key} from its config.json)",
                )
            try:
                return StoredQuantization(name, canonical_name, reader(stated))
            except ValueError as error:
                raise _unreadable(name, method, str(error)) from error
    return StoredQuantization(name, canonical_name, None)


def _unreadable(name: str, method: str, reason: str = "", advice: str = "") -> CheckpointError:
    how = f" in a way that can't be read, as {reason}" if reason else ", which can't be read"
    return CheckpointError(
        f"{name} is quantised with {_LABELS.get(method, method)}{how}: give the checkpoint that it "
        f"was made from{advice}"
    )

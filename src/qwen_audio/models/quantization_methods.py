"""Ways to store quantised matrices: GPTQ, AWQ, bitsandbytes, compressed-tensors.

Each reads its settings in config.json, and says how the weights of one layer are stored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from qwen_audio.weights.bitsandbytes_layout import BitsAndBytes4Layout, BitsAndBytes8Layout
from qwen_audio.weights.compressed_layouts import PackedLayout, WholeByteLayout
from qwen_audio.weights.gptq_awq import AwqLayout, GptqLayout
from qwen_audio.weights.matrix_layout import MatrixLayout

from .tensors import module_names

__all__ = ["METHODS", "QuantizationMethod"]


class QuantizationMethod(Protocol):
    """One way to store quantised matrices.

    Attributes:
        name: in specs.
    """

    name: ClassVar[str]

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError, with the reason, for settings that aren't supported."""

    def layout(
        self, module: str, shape: tuple[int, int], stored: Collection[str]
    ) -> MatrixLayout | None:
        """How a layer's weights are stored; None: not quantised.

        Args:
            module: the layer's name; those of its tensors start with it and a dot.
            stored: the names of all tensors but those that an unquantised model has besides.
        """


class _Gptq:
    name: ClassVar[str] = "gptq"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _check(settings.get("bits"), "bits", 4)
        stated = settings.get("checkpoint_format") or settings.get("format") or "gptq"
        version = _check(str(stated).lower(), "format", "gptq", "gptq_v2")
        _check(bool(settings.get("is_marlin_format")), "is_marlin_format", False)
        _check(str(settings.get("pack_dtype") or "int32"), "pack_dtype", "int32")
        self._group_size = _group_size(settings.get("group_size"))
        if settings.get("desc_act") and self._group_size is not None:
            raise ValueError("its columns are ordered by activation (desc_act, act-order)")
        if any(not key.startswith("-") for key in settings.get("dynamic") or {}):
            raise ValueError("modules have settings of their own (dynamic)")
        self._is_second_version = version == "gptq_v2"

    def layout(
        self, module: str, shape: tuple[int, int], stored: Collection[str]
    ) -> MatrixLayout | None:
        if f"{module}.qweight" not in stored:
            return None
        _check_multiples(module, shape, (8, 8), self._group_size)
        adds_bias, has_indices = f"{module}.bias" in stored, f"{module}.g_idx" in stored
        return GptqLayout(*shape, self._group_size, adds_bias, self._is_second_version, has_indices)


class _Awq:
    name: ClassVar[str] = "awq"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _check(settings.get("bits") or settings.get("w_bit"), "bits", 4)
        for key in ("version", "format", "checkpoint_format"):
            _check(str(settings.get(key) or "gemm").lower(), key, "gemm")
        _check(settings.get("zero_point", True), "zero_point", True)
        self._group_size = _group_size(settings.get("group_size") or settings.get("q_group_size"))

    def layout(
        self, module: str, shape: tuple[int, int], stored: Collection[str]
    ) -> MatrixLayout | None:
        if f"{module}.qweight" not in stored:
            return None
        _check_multiples(module, shape, (8, 8), self._group_size)
        return AwqLayout(*shape, self._group_size, f"{module}.bias" in stored)


class _BitsAndBytes:
    name: ClassVar[str] = "bnb"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _check(settings.get("bnb_4bit_quant_storage") or "uint8", "bnb_4bit_quant_storage", "uint8")

    def layout(
        self, module: str, shape: tuple[int, int], stored: Collection[str]
    ) -> MatrixLayout | None:
        if f"{module}.SCB" in stored:
            return BitsAndBytes8Layout(*shape, f"{module}.weight_format" in stored)
        for kind in ("nf4", "fp4"):
            if f"{module}.weight.quant_state.bitsandbytes__{kind}" in stored:
                nested = f"{module}.weight.nested_absmax" in stored
                return BitsAndBytes4Layout(*shape, kind, nested)
        return None


class _CompressedTensors:
    name: ClassVar[str] = "ct"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        status = settings.get("quantization_status") or "compressed"
        _check(status, "quantization_status", "compressed")
        for key in ("kv_cache_scheme", "transform_config"):
            if settings.get(key):
                raise ValueError(f"it has a {key}")
        sparsity = (settings.get("sparsity_config") or {}).get("format", "dense")
        _check(sparsity, "format of sparsity", "dense")
        groups = settings.get("config_groups")
        if not isinstance(groups, Mapping) or not groups:
            raise ValueError("config.json has no config_groups")
        self._groups = [_read_group(group, settings.get("format")) for group in groups.values()]

    def layout(
        self, module: str, shape: tuple[int, int], stored: Collection[str]
    ) -> MatrixLayout | None:
        if not {f"{module}.weight_packed", f"{module}.weight_scale"} & set(stored):
            return None
        group = self._group_of(module)
        has_zero_points = f"{module}.weight_zero_point" in stored
        is_packed = f"{module}.weight_packed" in stored
        packed = (1, 32 // group.bits if is_packed else 1)  # zero points fill integers in part
        _check_multiples(module, shape, packed, group.group_size)
        if is_packed:
            return PackedLayout(
                *shape, group.group_size, has_zero_points, group.bits, group.is_symmetric
            )
        _check(group.bits, f"{module}: bits", 8)
        return WholeByteLayout(*shape, group.group_size, has_zero_points)

    def _group_of(self, module: str) -> _Group:
        """A name counts more than a pattern, and a pattern more than the kind of module."""
        for matches in (_is_named, _is_like, _is_linear):
            for group in self._groups:
                for name in module_names(module):
                    if any(matches(target, name) for target in group.targets):
                        return group
        raise ValueError(f"no config_group is for {module}")


@dataclass(frozen=True)
class _Group:
    """Layers that compressed-tensors quantises alike."""

    targets: tuple[str, ...]
    bits: int
    group_size: int | None
    is_symmetric: bool


def _read_group(group: Any, default_format: Any) -> _Group:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ValueError("a config_group has no weights")
    stored = group.get("format") or default_format
    _check(stored, "format", "pack-quantized", "int-quantized", "naive-quantized")
    bits = _check(weights.get("num_bits"), "num_bits", 4, 8)
    _check(weights.get("type", "int"), "type of weights", "int")
    strategy = _check(weights.get("strategy"), "strategy", "group", "channel")
    if weights.get("actorder") not in (None, "weight", "static"):
        raise ValueError("its columns are ordered by activation (actorder)")
    is_symmetric = bool(weights.get("symmetric", True))
    if bits == 8:
        _check(is_symmetric, "symmetric", True)
    for key in ("input_activations", "output_activations"):
        if (group.get(key) or {}).get("dynamic", True) is not True:
            raise ValueError(f"it has scales of {key}")
    targets = tuple(map(str, group.get("targets") or ()))
    for target in targets:
        try:
            re.compile(target.removeprefix("re:"))
        except re.error as error:
            raise ValueError(f"its target {target!r:.60} is no pattern ({error})") from error
    size = _group_size(weights.get("group_size")) if strategy == "group" else None
    return _Group(targets, bits, size, is_symmetric)


METHODS: dict[str, type[QuantizationMethod]] = {
    "gptq": _Gptq,
    "awq": _Awq,
    "bitsandbytes": _BitsAndBytes,
    "compressed-tensors": _CompressedTensors,
}
"""By what config.json calls them."""


def _check(value: Any, name: str, *allowed: Any) -> Any:
    """The value. Raises ValueError unless it is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r:.60}, not {' or '.join(map(repr, allowed))}")
    return value


def _group_size(stated: Any) -> int | None:
    """Columns that share a scale; None: a whole row does, as -1 says."""
    if stated in (None, -1):
        return None
    if not isinstance(stated, int) or stated < 2 or stated % 2:
        raise ValueError(f"group_size is {stated!r:.60}")
    return stated


def _check_multiples(
    module: str, shape: tuple[int, int], packed: tuple[int, int], group_size: int | None
) -> None:
    """Raises ValueError for a matrix of no whole number of groups, or of integers that hold values
    of so many `packed` rows, or columns."""
    rows, columns = shape
    if rows % packed[0] or columns % packed[1] or columns % (group_size or columns):
        raise ValueError(
            f"{module} has {rows} × {columns} weights, no whole number of groups of "
            f"{group_size or max(packed)}"
        )


def _is_named(target: str, name: str) -> bool:
    return target == name


def _is_like(target: str, name: str) -> bool:
    return target.startswith("re:") and re.match(target.removeprefix("re:"), name) is not None


def _is_linear(target: str, _: str) -> bool:
    return target == "Linear"

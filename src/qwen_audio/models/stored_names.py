"""Names of tensors in checkpoint files: the layouts that transformers has written, as one.

`Family.canonical_name` says what this package calls each of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from qwen_audio.errors import CheckpointError, counted

from .family import Family
from .tensors import EMBEDDINGS, LM_HEAD

__all__ = ["find_names"]

_LAYER = re.compile(r"\.layers\.\d+\.")
_COMPUTED = ".rotary_emb.inv_freq"
"""Stored by early versions; modules compute it from the configuration."""

_ADAPTED = (".lora_", ".base_layer.", ".modules_to_save.")
_QUANTISED = (
    *(".qweight", ".qzeros", ".scales", ".g_idx", ".SCB", ".absmax", ".quant_map"),
    *(".weight_format", ".weight_scale", ".weight_scale_inv", ".input_scale", ".weight_packed"),
)
"""How names of quantised weights end, in GPTQ and AWQ, in bitsandbytes, and in 8-bit floats."""


def find_names(
    required: Collection[str], stored: Collection[str], family: Family, checkpoint: str
) -> dict[str, str]:
    """Each required tensor's name in the files; of tied embeddings, table and head share one.

    Args:
        required: the tensors, or parts of quantised ones, that are asked for.
        stored: the names in the files.
        checkpoint: its name, for error messages.

    Raises:
        CheckpointError: for missing, extra and ambiguous tensors.
    """
    names = sorted(
        name
        for name in stored
        if not (name.endswith(_COMPUTED) or name.startswith(family.ignored_names))
    )
    _check_layout(names, required, family, checkpoint)
    found: dict[str, str] = {}
    for name in names:
        canonical = family.canonical_name(name)
        if canonical in found:
            raise CheckpointError(
                f"{checkpoint} has one tensor under two names, {found[canonical]} and {name}: "
                "files of two checkpoints are mixed; delete those of one"
            )
        found[canonical] = name
    if family.ties_head:
        for absent, present in ((LM_HEAD, EMBEDDINGS), (EMBEDDINGS, LM_HEAD)):
            if absent in required and absent not in found and present in found:
                found[absent] = found[present]
    model_class = family.transformers_class.__name__
    extra = [name for canonical, name in found.items() if canonical not in required]
    own = {_LAYER.sub(".layers.", name) for name in required}
    foreign = [
        name for name in extra if _LAYER.sub(".layers.", family.canonical_name(name)) not in own
    ]
    if foreign:
        raise CheckpointError(
            f"{checkpoint} has {_listed(foreign, f' that {family.title} lacks')}, such as a head "
            "of its own, which would be ignored: load it with transformers' "
            f"{model_class}, save that with save_pretrained, and load that"
        )
    missing = sorted(required - found.keys())
    if missing == [LM_HEAD]:
        raise CheckpointError(
            f"{checkpoint} lacks the language model's head, {LM_HEAD}, and its config.json doesn't "
            "tie it to the embeddings (tie_word_embeddings): save the "
            f"{model_class}, not the model inside it"
        )
    for verb, names, relation in (("lacks", missing, ""), ("has", extra, " that its config lacks")):
        if names:
            raise CheckpointError(
                f"{checkpoint} {verb} {_listed(names, relation)}: config.json and weights don't "
                "belong together; download them again"
            )
    return found


def _check_layout(
    names: Collection[str], required: Collection[str], family: Family, checkpoint: str
) -> None:
    """Raises CheckpointError for weights of a wrapped or adapted model, or of one that is quantised
    in another way than its config.json says."""
    quantised = [
        name
        for name in names
        if name.endswith(_QUANTISED) and family.canonical_name(name) not in required
    ]
    if quantised:
        raise CheckpointError(
            f"{checkpoint} is quantised, but not as its config.json says (quantization_config): it "
            f"has {_listed(quantised)}; give the checkpoint that it was made from"
        )
    prefix = next(
        (
            name.removesuffix(family.landmark)
            for name in names
            if name.endswith(f".{family.landmark}")
            and family.canonical_name(name) != family.landmark
        ),
        "",
    )
    adapted = [name for name in names if any(part in name for part in _ADAPTED)]
    if adapted or prefix.startswith("base_model."):
        example = adapted or [name for name in names if name.startswith(prefix)]
        raise CheckpointError(
            f"{checkpoint} was saved with a PEFT adapter around the model: it has "
            f"{_listed(example)}; save model.merge_and_unload() with save_pretrained, and load that"
        )
    if prefix:
        raise CheckpointError(
            f"{checkpoint} was saved from a wrapper of the model: names of its tensors start with "
            f"{prefix!r}; save the model inside (accelerator.unwrap_model(model), or "
            "model.module) with save_pretrained, and load that"
        )


def _listed(names: Iterable[str], relation: str = "") -> str:
    """How many there are, and the first three: "4 tensors, a, b, c …"."""
    ordered = sorted(names)
    count = f"{counted(len(ordered), 'tensor')}{relation}"
    return f"{count}, {', '.join(ordered[:3])}{' …' * (len(ordered) > 3)}"

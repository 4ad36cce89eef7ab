"""transformers' own model with rows changed by forward hooks: the reference of edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference import PLAIN, Reference

PROMPT = PLAIN + "Describe the music:"

RowFunction = Callable[[Tensor], Tensor]


def place_of(reference: Reference, tap: str) -> tuple[Any, bool]:
    """The module of a tap, and whether the tap is its input."""
    tower, model = reference.tower, reference.model.model
    stage, _, rest = tap.partition(".")
    lm = model.language_model
    if stage == "audio_tower":
        return tower.layer_norm, False
    if stage == "projector":
        return model.multi_modal_projector, False
    if tap == "lm.norm":
        return lm.norm, False
    layers = tower.layers if stage == "encoder" else lm.layers
    number, _, part = rest.partition(".")
    layer = layers[max(int(number) - 1, 0)]
    if part:
        parts = {
            "heads": (layer.self_attn.o_proj, True),
            "attention": (layer.self_attn, False),
            "mlp": (layer.mlp, False),
        }
        return parts[part]
    return layer, int(number) == 0


@contextmanager
def edited(
    reference: Reference, tap: str, rows: slice | list[int], change: RowFunction
) -> Iterator[None]:
    """While it lasts, some rows at a tap are what `change` makes of them."""
    module, is_input = place_of(reference, tap)

    def changed(values: Tensor) -> Tensor:
        flat = values.reshape(-1, values.shape[-1]).clone()
        flat[rows] = change(flat[rows])
        return flat.reshape(values.shape)

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (changed(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed(kwargs["hidden_states"])}

    def after(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (changed(output[0]), *output[1:])
        return changed(output)

    handle = (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if is_input
        else module.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


def counts(reference: Reference, inputs: Any) -> dict[str, Any]:
    """The rows of audio by stage, and the positions of spans in the language model."""
    mel = int(inputs["feature_attention_mask"].sum())
    frames, tokens = (
        int(n) for n in reference.tower._get_feat_extract_output_lengths(torch.tensor(mel))
    )
    ids = inputs["input_ids"][0].tolist()
    audio_id = reference.model.config.audio_token_id
    audio = [k for k, token in enumerate(ids) if token == audio_id]
    prompt = [k for k, token in enumerate(ids) if token != audio_id]
    return {
        "mel": mel,
        "encoder": frames,
        "audio_tower": tokens,
        "projector": tokens,
        "audio": audio,
        "prompt": prompt,
        "last": [len(ids) - 1],
        "all": list(range(len(ids))),
    }


def rows_of(reference: Reference, inputs: Any, tap: str, span: str) -> Any:
    """The rows of a span at a tap."""
    found = counts(reference, inputs)
    stage = tap.split(".")[0]
    return found[span] if stage == "lm" else slice(found[stage])


@torch.inference_mode()
def edited_logits(
    reference: Reference, clip: np.ndarray, tap: str, span: str, change: RowFunction
) -> np.ndarray:
    """transformers' logits of all positions."""
    inputs = reference.inputs([clip], [PROMPT])
    rows = rows_of(reference, inputs, tap, span)
    if tap == "mel":
        frames = inputs["input_features"][0, :, rows].T.clone()
        inputs["input_features"][0, :, rows] = change(frames).T
        return np.asarray(reference.model(**inputs).logits[0])
    with edited(reference, tap, rows, change):
        return np.asarray(reference.model(**inputs).logits[0])

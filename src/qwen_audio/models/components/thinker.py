"""The thinker of a Qwen-Omni model: the part that listens and writes, inside of one that speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from qwen_audio.errors import CheckpointError

from .decoder import DecoderFamily

__all__ = ["ThinkerFamily", "thinker_names"]

_DECODER = ("embed_tokens.", "layers.", "norm.")


def thinker_names(*names: str) -> tuple[str, ...]:
    """How names of a part of the thinker begin in all layouts of files."""
    prefixes = ("thinker.", "thinker.model.", "", "model.")
    return tuple(prefix + name for prefix in prefixes for name in names)


class ThinkerFamily(DecoderFamily):
    """A thinker, in the files of the whole model or by itself. Images and video are not supported,
    and the parts that speak are not used: their tensors are never read."""

    projector_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    """How the names of the projector's tensors begin in files, where it is in the encoder, and
    what they are in the projector."""

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        thinker = settings.get("thinker_config", settings)
        if not isinstance(thinker, Mapping):
            raise CheckpointError(
                f"{name}: config.json is not valid (thinker_config={thinker!r:.40})"
            )
        dtypes = {key: settings[key] for key in ("dtype", "torch_dtype") if key in settings}
        super().__init__({**thinker, **dtypes}, name)

    def canonical_name(self, stored: str) -> str:
        """Without `thinker.`, the language model's as elsewhere: in files it is `model`."""
        name = stored.removeprefix("thinker.")
        if (inner := name.removeprefix("model.")).startswith(_DECODER):
            return f"language_model.model.{inner}"
        for begin, ours in self.projector_names:
            if inner.startswith(begin):
                return inner.replace(begin, f"multi_modal_projector.{ours}", 1)
        return super().canonical_name(name)

    @property
    def ties_head(self) -> bool:
        """As the thinker's configuration says; that of its language model isn't used."""
        return bool(self.config.tie_word_embeddings)

    def transformers_config(self, depth: int, vocabulary: int) -> Any:
        """Without layers for images."""
        config = super().transformers_config(depth, vocabulary)
        config.vision_config = type(config.vision_config)(depth=0)
        return config

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """Layers for images need no weights."""
        model.model.visual = nn.Identity()
        return super().transformers_modules(model)

"""How transformers builds its own model of a family: for parity reports."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import Tensor, nn

__all__ = ["TransformersFamily"]


class TransformersFamily(ABC):
    """What transformers has of a family.

    Attributes:
        config: transformers' configuration, of config.json.
    """

    config: Any

    def transformers_config(self, depth: int, vocabulary: int) -> Any:
        """The configuration with so many decoder layers and tokens."""
        config = copy.deepcopy(self.config)
        config.text_config.num_hidden_layers = depth
        config.text_config.vocab_size = vocabulary
        if getattr(config.text_config, "layer_types", None):
            del config.text_config.layer_types[depth:]
        return config

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """Modules of transformers' model by how this package's names of their tensors begin."""
        return {
            "audio_tower.": model.model.audio_tower,
            "multi_modal_projector.": model.model.multi_modal_projector,
            "language_model.model.": model.model.language_model,
        }

    def transformers_tensors(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of a module as transformers' module has them, by its names."""
        return tensors

    @abstractmethod
    def transformers_inputs(
        self, samples: Float32[np.ndarray, "samples"], extractor: Any
    ) -> dict[str, Tensor]:
        """What transformers' model takes of one window beside token ids: `input_features`, and a
        mask under the model's name for it."""

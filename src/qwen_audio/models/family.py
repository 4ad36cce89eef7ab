"""What belongs to one family of models; everything else in this package knows families by this.

A family is a class, and a loaded checkpoint has an instance of it, made from its config.json.
`components` has what several families share, and `registry` lists them; see docs/families.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from qwen_audio.audio.log_mel import LogMel, SpectrogramPeak, Surroundings, mel_frame_count
from qwen_audio.audio.window import WindowLimits
from qwen_audio.errors import CheckpointError
from qwen_audio.weights.module_store import ModuleStore

from .checkpoint_files import CheckpointFiles
from .components.config_fields import packed_config
from .components.prompt import PromptTokenizer
from .components.prompt_format import PromptFormat
from .layer_sizes import LayerSizes
from .packed_attention import Packing
from .tap import ModelDimensions, Stage
from .tensors import TensorGroup, TensorRequirement, tensor_requirements
from .transformers_family import TransformersFamily

__all__ = ["Family", "LayerSizes", "RunLayer"]

RunLayer = Callable[[Tensor], Tensor]
"""One layer of a pass: packed rows, (rows, width), to the rows after it."""


class Family(TransformersFamily):
    """One checkpoint's model, as its family defines it; it holds no weights.

    Args:
        settings: the content of config.json.
        name: of the checkpoint, for error messages.

    Attributes:
        config: transformers' configuration, as it is.
        audio_config, text_config: those of the encoder and the language model, for layers whose
            attention is `packed_attention`; `text_config` is None where there is no language model.

    Raises:
        CheckpointError: if the configuration isn't valid, or not supported: naming the field.
    """

    title: ClassVar[str]
    """In error messages, such as "Qwen2-Audio"."""
    config_class: ClassVar[type]
    """transformers' configuration."""
    transformers_class: ClassVar[type]
    """transformers' model with its head."""
    landmark: ClassVar[str]
    """A tensor of every checkpoint, by which the names of what the model was inside are found."""
    ignored_names: ClassVar[tuple[str, ...]] = ()
    """How names in files begin that belong to parts which are knowingly not used."""
    outlier_inputs: ClassVar[tuple[str, ...]] = ("language_model.",)
    """How names of matrices begin whose activations have outliers. In large language models a few
    channels are 10 to 100 times as large as the others: in 8 bits with a scale a row the others
    would keep 1 to 4 (https://arxiv.org/abs/2208.07339)."""
    unquantized_names: ClassVar[tuple[str, ...]] = ()
    """How names of matrices end that `quantize=` leaves as they are."""
    float32_names: ClassVar[tuple[str, ...]] = ()
    """How names of tensors begin that stay in float32, in models of any dtype."""
    experts_prefix: ClassVar[str] = ""
    """How names of experts begin, within a decoder layer; their numbers follow."""
    window_limits: ClassVar[WindowLimits] = WindowLimits()
    """How long a window may be."""
    padded_seconds: ClassVar[float] = 0.0
    """What windows are padded to a multiple of where the encoder attends to padding; else 0."""
    prompt_format: ClassVar[PromptFormat | None] = None
    """None where there is no language model."""

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        try:
            self.config: Any = self.config_class(**settings)
        except Exception as error:  # transformers' strict configs raise several types
            raise CheckpointError(f"{name}: config.json is not valid ({error})") from error
        audio, text = self.part_configs()
        self.audio_config, self.text_config = packed_config(audio), packed_config(text)
        self.check_config(name)
        self.dimensions: ModelDimensions = self.read_dimensions()
        self.sizes: LayerSizes = self.read_sizes()

    # The configuration.

    def part_configs(self) -> tuple[Any, Any]:
        """The configurations of the encoder and the language model."""
        return self.config.audio_config, self.config.text_config

    @abstractmethod
    def check_config(self, name: str) -> None:
        """Raises CheckpointError for what transformers supports and this package doesn't."""

    @abstractmethod
    def read_dimensions(self) -> ModelDimensions:
        """Widths, numbers of layers, and times of rows; stages without times don't exist."""

    @abstractmethod
    def read_sizes(self) -> LayerSizes:
        """Sizes inside the layers."""

    # Tensors.

    @abstractmethod
    def tensor_groups(self) -> Iterator[TensorGroup]:
        """All tensors of a checkpoint, in the order of the pipeline."""

    def tensor_requirements(self) -> dict[str, TensorRequirement]:
        """Name and requirement of every tensor that a checkpoint must have."""
        return dict(tensor_requirements(self.tensor_groups(), self.dimensions))

    def canonical_name(self, stored: str) -> str:
        """The name that this package uses for a tensor, from its name in a file.

        By default that of files as most versions of transformers write them, the same; and of its
        own modules, `model.audio_tower.*`, `model.language_model.*` and `lm_head.*`, which version
        5 saves with save_original_format=False.
        """
        name = stored.removeprefix("model.")
        if name.startswith("lm_head."):
            return f"language_model.{name}"
        if not name.startswith("language_model."):
            return name
        inner = name.removeprefix("language_model.").removeprefix("model.")
        return f"language_model.{inner if inner.startswith('lm_head.') else f'model.{inner}'}"

    def stacked_names(self, stored: str) -> Sequence[str]:
        """The names of the tensors that are stacked in one of a file: by default, its own."""
        return (stored,)

    @property
    def ties_head(self) -> bool:
        """Whether the LM head is the embedding table."""
        configs = (self.text_config, self.config)
        return any(getattr(config, "tie_word_embeddings", False) for config in configs)

    # Audio to rows of the encoder.

    @abstractmethod
    def feature_extractor(self, settings: Any, file: str) -> Any:
        """transformers' feature extractor. Raises CheckpointError, naming the file, for settings
        that aren't supported."""

    @abstractmethod
    def log_mel(self, samples: Float32[np.ndarray, "samples"], extractor: Any) -> LogMel:
        """What the encoder is given of a window's samples at 16 kHz."""

    def recording_peak(self, extractor: Any) -> SpectrogramPeak | None:  # noqa: ARG002
        """What measures a recording of several windows, each of which `log_mel_within` is given;
        None where transformers' processor normalises no more than a window at once."""
        return None

    def log_mel_within(
        self, samples: Float32[np.ndarray, "samples"], around: Surroundings, extractor: Any
    ) -> LogMel:
        """`log_mel` of a window of a recording that was measured."""
        raise NotImplementedError

    def mel_frames(self, samples: int) -> int:
        """`LogMel.valid_frames` of a window of so many samples: by default one per begun hop."""
        return mel_frame_count(samples)

    @abstractmethod
    def rows(self, stage: Stage, mel_frames: int) -> int:
        """How many rows of a stage, or positions of the language model, stand for the audio of a
        window, of so many `LogMel.valid_frames`."""

    def encoder_rows(self, mel_frames: int) -> int:
        """How many rows the encoder computes: those of padding included, after the others."""
        return self.rows(Stage.ENCODER, mel_frames)

    def audio_tokens(self, mel_frames: int) -> int:
        """How many positions a window takes in the language model: those of padding included."""
        return self.rows(Stage.PROJECTOR, mel_frames)

    def padding_tokens(self, mel_frames: int) -> int:
        """How many of these are of padding."""
        return self.audio_tokens(mel_frames) - self.rows(Stage.PROJECTOR, mel_frames)

    @abstractmethod
    def stem(
        self, modules: ModuleStore, features: Float[Tensor, "mel_bins frames"], valid_frames: int
    ) -> Float[Tensor, "rows width"]:
        """`encoder.0` of one window: convolutions and positions, `encoder_rows` rows.

        Args:
            features, valid_frames: of its `LogMel`.
        """

    def attention_blocks(self, rows: int) -> Sequence[int]:
        """The encoder rows of a window, in blocks that attend to themselves alone."""
        return (rows,)

    @abstractmethod
    def encoder_layers(
        self, modules: ModuleStore, depth: int, lengths: Sequence[int]
    ) -> Iterator[RunLayer]:
        """The first encoder layers, in order, for packed windows of so many rows each."""

    @abstractmethod
    def tower(
        self, modules: ModuleStore, frames: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "pooled tower_width"]:
        """`audio_tower` of one window, the projector's input, from its last encoder layer."""

    def project(
        self, modules: ModuleStore, rows: Float[Tensor, "rows tower_width"]
    ) -> Float[Tensor, "rows lm_width"]:
        """Rows in the text embedding space; each by itself, so that windows may be packed."""
        raise NotImplementedError

    # The language model.

    @property
    def audio_token_id(self) -> int:
        """Of the placeholder for one row of audio."""
        return int(self.config.audio_token_id)

    def rotary_embedding(self) -> nn.Module:
        """The rotary position embedding: buffers in float32, and no weights."""
        raise NotImplementedError

    def position_embeddings(
        self,
        rotary: nn.Module,
        rows: Float[Tensor, "rows lm_width"],
        positions: Int64[Tensor, "rows"],
    ) -> Any:
        """What each decoder layer is given of the positions: by default cosines and sines."""
        return rotary(rows[None], positions[None])

    def decoder_layers(self, modules: ModuleStore, depth: int) -> Iterator[nn.Module]:
        """The first decoder layers, in order; see `ModuleStore.layers`."""
        raise NotImplementedError

    def run_decoder_layer(
        self,
        layer: nn.Module,
        rows: Float[Tensor, "rows lm_width"],
        position_embeddings: Any,
        packing: Packing,
    ) -> Float[Tensor, "rows lm_width"]:
        """Packed rows after a decoder layer."""
        raise NotImplementedError

    def layer_parts(self, layer: Any) -> dict[str, nn.Module]:
        """The modules inside a decoder layer by `LAYER_PARTS`: "attention" and "mlp" return what is
        added to the rows, and "heads" takes the outputs of all attention heads, side by side."""
        raise NotImplementedError

    def final_norm(self, modules: ModuleStore) -> nn.Module:
        """The norm between the last decoder layer and the head."""
        raise NotImplementedError

    def lm_head(self, modules: ModuleStore) -> nn.Module:
        """From normed rows to a logit for every token of the vocabulary."""
        raise NotImplementedError

    def tokenizer(self, files: CheckpointFiles, chat: bool | None = None) -> PromptTokenizer:
        """The tokenizer and prompt format.

        Args:
            chat: whether prompts go through the chat template; None: as the checkpoint was trained.

        Raises:
            CheckpointError: if it can't be read, or isn't the configuration's.
        """
        if self.prompt_format is None:
            raise CheckpointError(f"{files.name} has no language model, and takes no prompts")
        default_eos = self.text_config.eos_token_id or getattr(self.config, "eos_token_id", None)
        return PromptTokenizer(files, self.prompt_format, self.audio_token_id, default_eos, chat)

"""The encoder of Whisper, as many families have it: convolutions and learned positions, layers of
full attention within 30 s, and what belongs to its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, gelu, linear, pad

from qwen_audio.audio.log_mel import MEL_FRAMES_PER_SECOND, LogMel
from qwen_audio.errors import CheckpointError
from qwen_audio.models.family import Family, RunLayer
from qwen_audio.models.packed_attention import Packing
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import Shapes, TensorGroup, shapes_of
from qwen_audio.weights.module_store import ModuleStore

from .whisper_features import (
    CHUNK_FRAMES,
    build_feature_extractor,
    chunked_log_mel,
    conv_frame_count,
)

__all__ = [
    "POSITIONS",
    "GeluInPlace",
    "WhisperEncoderFamily",
    "blocks_of",
    "convolve",
    "encoder_layer_of",
]

_CHUNK_ROWS = CHUNK_FRAMES // 2

POSITIONS = "audio_tower.embed_positions."
"""The table of what is added for positions."""


class WhisperEncoderFamily(Family):
    """A family with Whisper's encoder, whose rows are pooled by two and normed for the projector.

    A window longer than 30 s is encoded in chunks of 30 s, each by itself.
    """

    encoder_layer: ClassVar[type[nn.Module]]
    """transformers' encoder layer."""
    projector: ClassVar[type[nn.Module]]
    """transformers' projector, of rows at `audio_tower`."""
    tower_norm: ClassVar[str] = "layer_norm"
    """What transformers calls the norm after the layers."""
    learns_positions: ClassVar[bool] = True
    """Whether position embeddings are in the files; else `positions` makes them, if any."""
    feature_mask: ClassVar[str]
    """What transformers' model calls the mask of `input_features`."""
    position_count: ClassVar[str] = "max_source_positions"
    """The encoder's number of positions, in its configuration."""
    landmark = "audio_tower.conv1.weight"

    def check_config(self, name: str) -> None:
        """Raises CheckpointError for an encoder of another number of positions."""
        super().check_config(name)  # type: ignore[safe-super]
        positions = getattr(self.audio_config, self.position_count)
        if positions != _CHUNK_ROWS:
            raise CheckpointError(
                f"{name} has an audio encoder of {positions} positions; only {_CHUNK_ROWS} (30 s) "
                "are supported"
            )

    def encoder_row_times(self) -> dict[Stage, RowTimes]:
        """Of the stages up to the projector: conv2 has stride 2, and pooling width 2."""
        frames = {Stage.MEL: 1, Stage.ENCODER: 2, Stage.AUDIO_TOWER: 4, Stage.PROJECTOR: 4}
        return {
            stage: RowTimes.every(count / MEL_FRAMES_PER_SECOND) for stage, count in frames.items()
        }

    # Tensors.

    def encoder_groups(self) -> Iterator[TensorGroup]:
        """Tensors up to the projector."""
        config = self.audio_config
        width = config.hidden_size
        stem, norm = Tap(Stage.ENCODER, 0), {"weight": (width,), "bias": (width,)}
        conv1: Shapes = {"weight": (width, config.num_mel_bins, 3), "bias": (width,)}
        conv2: Shapes = {"weight": (width, width, 3), "bias": (width,)}
        positions: Shapes = {"weight": (_CHUNK_ROWS, width)}
        layer = shapes_of(lambda: self.build_encoder_layer(0))
        # conv1 has stride 1, so it runs at the mel rate.
        yield TensorGroup("audio_tower.conv1.", stem, conv1, float(MEL_FRAMES_PER_SECOND))
        yield TensorGroup("audio_tower.conv2.", stem, conv2)
        if self.learns_positions:
            yield TensorGroup(POSITIONS, stem, positions)
        for k in range(config.num_hidden_layers):
            yield TensorGroup(f"audio_tower.layers.{k}.", Tap(Stage.ENCODER, k + 1), layer)
        yield TensorGroup(f"audio_tower.{self.tower_norm}.", Tap(Stage.AUDIO_TOWER), norm)
        if Stage.PROJECTOR in self.dimensions.row_times:
            projector = shapes_of(self.build_projector)
            yield TensorGroup("multi_modal_projector.", Tap(Stage.PROJECTOR), projector)

    # Audio to rows.

    def feature_extractor(self, settings: Any, file: str) -> Any:
        """Whisper's feature extractor, of chunks of 30 s."""
        bins = self.audio_config.num_mel_bins
        return build_feature_extractor(settings, bins, file, self.title)

    def log_mel(self, samples: Float32[np.ndarray, "samples"], extractor: Any) -> LogMel:
        """Frames of the window, and up to two of the silence after it."""
        return chunked_log_mel(samples, extractor)

    def rows(self, stage: Stage, mel_frames: int) -> int:
        """3000 mel frames are 1500 encoder frames, and 750 audio tokens."""
        if stage is Stage.MEL:
            return mel_frames
        frames = conv_frame_count(mel_frames)
        return frames if stage is Stage.ENCODER else frames // 2

    def stem(
        self, modules: ModuleStore, features: Float[Tensor, "mel_bins frames"], valid_frames: int
    ) -> Float[Tensor, "rows width"]:
        """Two convolutions and the position embeddings, for each chunk.

        `features` hold the frames after the clip that the convolutions reach into; rows beyond the
        clip are dropped.
        """
        config, width = self.audio_config, self.audio_config.hidden_size
        conv1 = modules.get(
            "audio_tower.conv1.",
            lambda: nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1),
        )
        conv2 = modules.get(
            "audio_tower.conv2.",
            lambda: nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1),
        )
        positions = self.positions(modules)
        features = features.to(modules.device, modules.dtype)
        blocks = self.attention_blocks(self.encoder_rows(valid_frames))
        chunks = []
        for chunk, count in zip(features.split(2 * self.chunk_rows, dim=1), blocks, strict=True):
            frames = gelu(convolve(conv2, gelu(convolve(conv1, chunk)))).T[:count]
            if positions is not None:  # which may be float32
                frames = (frames + positions[: len(frames)]).to(frames.dtype)
            chunks.append(frames)
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def positions(self, modules: ModuleStore) -> Float[Tensor, "chunk_rows width"] | None:
        """The position embeddings of a chunk, by default those in the files; None: none are
        added."""
        if not self.learns_positions:
            return None
        width = self.audio_config.hidden_size
        weight: Tensor = modules.get(POSITIONS, lambda: nn.Embedding(_CHUNK_ROWS, width)).weight
        return weight

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk, which is convolved by itself and attends to itself: those of 30 s."""
        return _CHUNK_ROWS

    def attention_blocks(self, rows: int) -> Sequence[int]:
        """Chunks of `chunk_rows`, and what is left."""
        return blocks_of(rows, self.chunk_rows)

    def build_projector(self) -> nn.Module:
        """transformers' projector."""
        return self.projector(self.config)

    def build_encoder_layer(self, _: int) -> nn.Module:
        """transformers' layer, with its GELU in place."""
        return encoder_layer_of(self.encoder_layer, self.audio_config)

    def encoder_layers(
        self, modules: ModuleStore, depth: int, lengths: Sequence[int]
    ) -> Iterator[RunLayer]:
        """Full attention within each chunk."""
        packing = Packing(tuple(b for rows in lengths for b in self.attention_blocks(rows)))
        for layer in modules.layers("audio_tower.layers.", depth, self.build_encoder_layer):
            yield partial(self.run_encoder_layer, layer, packing)

    @staticmethod
    def run_encoder_layer(
        layer: nn.Module, packing: Packing, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """One layer over packed blocks."""
        output: Tensor = layer(rows[None], attention_mask=None, packing=packing)[0]
        return output

    def tower(
        self, modules: ModuleStore, frames: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "pooled width"]:
        """Average pairs of frames, then layer norm. An odd last frame has no row of its own: it
        only reaches its neighbours, through attention."""
        norm = self.build_tower_norm(modules)
        pooled: Tensor = norm(avg_pool1d(frames.T[None], kernel_size=2, stride=2)[0].T)
        return pooled

    def build_tower_norm(self, modules: ModuleStore) -> nn.Module:
        """The norm after the layers, with its weights."""
        width = self.audio_config.hidden_size
        norm: nn.Module = modules.get(
            f"audio_tower.{self.tower_norm}.", lambda: nn.LayerNorm(width)
        )
        return norm

    def project(
        self, modules: ModuleStore, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows lm_width"]:
        """transformers' projector."""
        projected: Tensor = modules.get("multi_modal_projector.", self.build_projector)(rows)
        return projected

    def transformers_inputs(
        self, samples: Float32[np.ndarray, "samples"], extractor: Any
    ) -> dict[str, Tensor]:
        """Chunks of 30 s, each padded, and the mask of what isn't padding."""
        size = round(extractor.n_samples)
        features = extractor(
            [samples[start : start + size] for start in range(0, len(samples), size)],
            sampling_rate=extractor.sampling_rate,
            return_attention_mask=True,
            padding="max_length",
            return_tensors="pt",
        )
        mask = {self.feature_mask: features["attention_mask"]}
        return {"input_features": features["input_features"], **mask}


class GeluInPlace(nn.Module):
    """The same numbers as transformers' GELU, in place: its input is a layer's widest tensor, which
    nothing else uses, so that it need not be in memory twice."""

    def forward(self, rows: Tensor) -> Tensor:
        """The same tensor; another one where its gradient is needed."""
        return gelu(rows) if rows.requires_grad else torch.ops.aten.gelu_(rows)


def encoder_layer_of(layer_class: Any, config: Any) -> nn.Module:
    """transformers' layer, with its GELU in place."""
    layer: nn.Module = layer_class(config)
    if config.activation_function == "gelu":
        layer.activation_fn = GeluInPlace()
    return layer


def blocks_of(rows: int, size: int) -> list[int]:
    """Rows in blocks of a size, and what is left."""
    return [min(size, rows - start) for start in range(0, rows, size)]


def convolve(
    conv: nn.Conv1d, features: Float[Tensor, "channels frames"]
) -> Float[Tensor, "width rows"]:
    """A convolution; on an NVIDIA GPU as a matrix product.

    There cuDNN would compute a float32 convolution in TF32 by default, with errors of 4e-4, and
    what turns that off is a setting of the whole process. Products are in float32 by default.
    """
    return _as_product(conv, features) if features.is_cuda else conv(features[None])[0]


def _as_product(
    conv: nn.Conv1d, features: Float[Tensor, "channels frames"]
) -> Float[Tensor, "width rows"]:
    """A convolution as the product of its weight and the frames that each row is made of."""
    padding = int(conv.padding[0])
    padded = pad(features, (padding, padding))
    patches = padded.unfold(1, conv.kernel_size[0], conv.stride[0])  # channels, rows, size
    return linear(patches.transpose(0, 1).flatten(1), conv.weight.flatten(1), conv.bias).T

"""The encoder of Qwen3-Omni and Qwen3-ASR: 2-D convolutions of each second by itself, and layers
of attention within blocks of 8 s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad, unfold

from qwen_audio.audio.log_mel import HOP_SAMPLES, MEL_FRAMES_PER_SECOND, LogMel
from qwen_audio.errors import CheckpointError
from qwen_audio.models.family import LayerSizes, RunLayer
from qwen_audio.models.packed_attention import Packing
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import ModelDimensions, Stage, Tap
from qwen_audio.models.tensors import Shapes, TensorGroup, shapes_of
from qwen_audio.weights.module_store import ModuleStore

from .decoder import DecoderFamily
from .recording_features import RecordingFeaturesFamily
from .whisper_encoder import blocks_of, encoder_layer_of

__all__ = ["Qwen3EncoderFamily", "conv_rows", "convolve_2d"]

CHUNK_FRAMES = MEL_FRAMES_PER_SECOND
"""Mel frames that are convolved together, and have the same positions: a second."""
CHUNK_ROWS = 13
"""Rows of a second, after three convolutions of stride 2: 100, 50, 25, 13."""
_ROW_FRAMES = 8
"""Mel frames of a row, but of the last one of a second, which has the other 4."""
_CHUNKS_AT_ONCE = 8
"""Seconds that are convolved at once: the first convolution makes 6 MB of one, in float32."""


def conv_rows(mel_frames: int) -> int:
    """Rows of so many mel frames: 13 a second, and of the rest one per begun 8 frames."""
    seconds, rest = divmod(mel_frames, CHUNK_FRAMES)
    return seconds * CHUNK_ROWS + -(-rest // _ROW_FRAMES)


class Qwen3EncoderFamily(RecordingFeaturesFamily, DecoderFamily):
    """A family with this encoder, an MLP as projector, and a language model.

    The reference is transformers' model of one clip: of a batch its features have other lengths,
    the last second is filled differently, and blocks of clips shorter than a second change.
    """

    encoder_layer: ClassVar[Any]
    """transformers' encoder layer, which divides its input by `cu_seqlens` itself."""
    sinusoids: ClassVar[Any]
    """transformers' positions, of a length and a width."""
    projector: ClassVar[Any]
    """transformers' projector, of a configuration with an `audio_config`."""
    feature_mask: ClassVar[str]
    """What transformers' model calls the mask of `input_features`."""
    min_mel_frames: ClassVar[int] = 0
    """To which shorter clips are padded; the model takes the padding for audio."""
    fills_short_clips: ClassVar[bool]
    """Whether a clip shorter than a second is filled to one for the convolutions."""
    landmark = "audio_tower.conv2d1.weight"

    def check_config(self, name: str) -> None:
        """Raises CheckpointError for chunks of another length than a second."""
        super().check_config(name)
        audio = self.audio_config
        chunk, block = 2 * audio.n_window, audio.n_window_infer
        if chunk != CHUNK_FRAMES or block < chunk or block % chunk:
            raise CheckpointError(
                f"{name} has an audio encoder of n_window={audio.n_window} and "
                f"n_window_infer={block}; only n_window={CHUNK_FRAMES // 2} (1 s), and blocks of "
                f"whole seconds, are supported"
            )

    def read_dimensions(self) -> ModelDimensions:
        """The 13th row of a second lasts half as long as the others."""
        audio, text = self.audio_config, self.text_config
        rest = CHUNK_FRAMES - (CHUNK_ROWS - 1) * _ROW_FRAMES
        frames = (_ROW_FRAMES,) * (CHUNK_ROWS - 1) + (rest,)
        rows = RowTimes(tuple(count / MEL_FRAMES_PER_SECOND for count in frames))
        return ModelDimensions(
            mel_bins=audio.num_mel_bins,
            encoder_layers=audio.encoder_layers,
            encoder_width=audio.d_model,
            tower_width=audio.d_model,
            lm_layers=text.num_hidden_layers,
            lm_width=text.hidden_size,
            heads_width=self.heads_width(),
            row_times={
                Stage.MEL: RowTimes.every(1 / MEL_FRAMES_PER_SECOND),
                **dict.fromkeys((Stage.ENCODER, Stage.AUDIO_TOWER, Stage.PROJECTOR), rows),
                **self.lm_row_times(rows),
            },
        )

    def read_sizes(self) -> LayerSizes:
        """The encoder attends to 8 s."""
        audio = self.audio_config
        return LayerSizes(audio.encoder_ffn_dim, self._block_rows, **self.lm_sizes())

    @property
    def _block_rows(self) -> int:
        return int(self.audio_config.n_window_infer) // CHUNK_FRAMES * CHUNK_ROWS

    # Tensors.

    def tensor_groups(self) -> Iterator[TensorGroup]:
        """Encoder, projector, language model."""
        audio, stem = self.audio_config, Tap(Stage.ENCODER, 0)
        width, channels = audio.d_model, audio.downsample_hidden_size
        for k, frames in ((1, 50), (2, 25), (3, CHUNK_ROWS)):
            inputs = channels if k > 1 else 1
            conv: Shapes = {"weight": (channels, inputs, 3, 3), "bias": (channels,)}
            rate = float(self._conv_bins(k) * frames)
            yield TensorGroup(f"audio_tower.conv2d{k}.", stem, conv, rate)
        out: Shapes = {"weight": (width, channels * self._conv_bins(3))}
        yield TensorGroup("audio_tower.conv_out.", stem, out)
        layer = shapes_of(lambda: self.build_encoder_layer(0))
        for k in range(audio.encoder_layers):
            yield TensorGroup(f"audio_tower.layers.{k}.", Tap(Stage.ENCODER, k + 1), layer)
        norm: Shapes = {"weight": (width,), "bias": (width,)}
        yield TensorGroup("audio_tower.ln_post.", Tap(Stage.AUDIO_TOWER), norm)
        projector = shapes_of(self.build_projector)
        yield TensorGroup("multi_modal_projector.", Tap(Stage.PROJECTOR), projector)
        yield from self.lm_groups()

    def _conv_bins(self, convolutions: int) -> int:
        """Of the mel bins, after convolutions of stride 2."""
        return -(-int(self.audio_config.num_mel_bins) // 2**convolutions)

    # Audio to rows.

    def log_mel(self, samples: Float32[np.ndarray, "samples"], extractor: Any) -> LogMel:
        """Frames of the window, and those of padding that the model takes for audio."""
        padding = self.min_mel_frames * HOP_SAMPLES - samples.size
        padded = np.pad(samples, (0, padding)) if padding > 0 else samples
        features = extractor(
            padded,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            return_tensors="np",
        )["input_features"][0]
        frames = features[:, : padded.size // HOP_SAMPLES]
        features = np.ascontiguousarray(frames, dtype=np.float32)
        return LogMel(features, self.mel_frames(samples.size))

    def mel_frames(self, samples: int) -> int:
        """One per whole hop: transformers drops the last one of a clip that ends within it."""
        return samples // HOP_SAMPLES

    def padded_samples(self, samples: int) -> int:
        """Short clips alone are padded."""
        return max(samples, self.min_mel_frames * HOP_SAMPLES)

    def window_frames(self, samples: int) -> int:
        """Those of padding included."""
        return self.padded_samples(samples) // HOP_SAMPLES

    def rows(self, stage: Stage, mel_frames: int) -> int:
        """100 mel frames are 13 rows at every stage."""
        return mel_frames if stage is Stage.MEL else conv_rows(mel_frames)

    def encoder_rows(self, mel_frames: int) -> int:
        """Those of padding included, in a clip that is padded."""
        return conv_rows(max(mel_frames, self.min_mel_frames))

    def audio_tokens(self, mel_frames: int) -> int:
        """As `encoder_rows`: the language model is given the padding."""
        return self.encoder_rows(mel_frames)

    def stem(
        self,
        modules: ModuleStore,
        features: Float[Tensor, "mel_bins frames"],
        valid_frames: int,  # noqa: ARG002 (all frames are audio)
    ) -> Float[Tensor, "rows width"]:
        """Three convolutions and positions, of each second by itself; the last one is filled with
        zeros, which the convolutions make other numbers of than of their own padding."""
        config, device = self.audio_config, modules.device
        channels = config.downsample_hidden_size
        features = features.to(device, modules.dtype)
        frames = features.shape[1]
        if frames > CHUNK_FRAMES or self.fills_short_clips:
            features = pad(features, (0, -frames % CHUNK_FRAMES))
        chunks = torch.stack(features.split(min(features.shape[1], CHUNK_FRAMES), dim=1))[:, None]
        convs = [
            modules.get(
                f"audio_tower.conv2d{k}.",
                partial(nn.Conv2d, channels if k > 1 else 1, channels, 3, stride=2, padding=1),
            )
            for k in (1, 2, 3)
        ]
        out = modules.get(
            "audio_tower.conv_out.",
            lambda: nn.Linear(channels * self._conv_bins(3), config.d_model, bias=False),
        )
        parts = []
        for part in chunks.split(_CHUNKS_AT_ONCE):
            for conv in convs:
                part = gelu(convolve_2d(conv, part))
            parts.append(out(part.permute(0, 3, 1, 2).flatten(2)))
        rows = torch.cat(parts)
        positions = self.positions().positional_embedding[: rows.shape[1]]
        placed = rows + positions.to(device, rows.dtype)
        return placed.flatten(0, 1)[: conv_rows(frames)]

    def positions(self) -> Any:
        """transformers' module: sines and cosines of a row's number within its second, which are
        computed in float32, and aren't in files."""
        return self.sinusoids(CHUNK_ROWS, self.audio_config.d_model)

    def attention_blocks(self, rows: int) -> Sequence[int]:
        """Blocks of 8 s."""
        return blocks_of(rows, self._block_rows)

    def build_encoder_layer(self, _: int) -> nn.Module:
        """transformers' layer, with its GELU in place."""
        return encoder_layer_of(self.encoder_layer, self.audio_config)

    def encoder_layers(
        self, modules: ModuleStore, depth: int, lengths: Sequence[int]
    ) -> Iterator[RunLayer]:
        """Full attention within each block."""
        packing = Packing(tuple(b for rows in lengths for b in self.attention_blocks(rows)))
        # The layer is given one sequence of all rows, and divides it no further.
        ends = torch.tensor([0, sum(lengths)])
        for layer in modules.layers("audio_tower.layers.", depth, self.build_encoder_layer):
            yield partial(_run_layer, layer, ends, packing)

    def tower(
        self, modules: ModuleStore, frames: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """Layer norm."""
        width = self.audio_config.d_model
        normed: Tensor = modules.get("audio_tower.ln_post.", lambda: nn.LayerNorm(width))(frames)
        return normed

    def project(
        self, modules: ModuleStore, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows lm_width"]:
        """An MLP."""
        projected: Tensor = modules.get("multi_modal_projector.", self.build_projector)(rows)
        return projected

    def build_projector(self) -> nn.Module:
        """transformers' module."""
        module: nn.Module = self.projector(self.config)
        return module

    def transformers_inputs(
        self, samples: Float32[np.ndarray, "samples"], extractor: Any
    ) -> dict[str, Tensor]:
        """One clip, without padding but for what the extractor itself adds."""
        features = extractor(
            samples,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = {self.feature_mask: features["attention_mask"]}
        return {"input_features": features["input_features"], **mask}


def _run_layer(
    layer: nn.Module, ends: Tensor, packing: Packing, rows: Float[Tensor, "rows width"]
) -> Float[Tensor, "rows width"]:
    output: Tensor = layer(rows, ends, packing=packing)[0]
    return output


def convolve_2d(
    conv: nn.Conv2d, images: Float[Tensor, "chunks channels height width"]
) -> Float[Tensor, "chunks out_channels out_height out_width"]:
    """A convolution; on an NVIDIA GPU in float32 as a matrix product (see `convolve`)."""
    if images.is_cuda and images.dtype is torch.float32:
        return conv_2d_as_product(conv, images)
    output: Tensor = conv(images)
    return output


def conv_2d_as_product(
    conv: nn.Conv2d, images: Float[Tensor, "chunks channels height width"]
) -> Float[Tensor, "chunks out_channels out_height out_width"]:
    """A convolution as the product of its weight and the patches that each value is made of."""
    (size, _), (stride, _), padding = conv.kernel_size, conv.stride, int(conv.padding[0])
    height, width = ((n + 2 * padding - size) // stride + 1 for n in images.shape[2:])
    patches = unfold(images, size, padding=padding, stride=stride)  # chunks, channels·size², places
    products = linear(patches.transpose(1, 2), conv.weight.flatten(1), conv.bias)
    return products.transpose(1, 2).unflatten(2, (height, width))

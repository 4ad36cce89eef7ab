"""Turns of the peers: transformers' composite model, CTranslate2, OpenVINO.

All get the same clips, the same weights and as many threads. Everyone's turn begins with samples
(or, for the folder, with files) and so includes the log-mel spectrogram.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .synthetic_audio import RATE, files, sounds
from .worker import Turn

__all__ = [
    "Composite",
    "composite_folder",
    "composite_tower",
    "ctranslate2_int8",
    "openvino_tower",
    "write_ctranslate2",
    "write_openvino",
]


class Composite:
    """The audio tower as `Qwen2AudioForConditionalGeneration` runs it: padded to 30 s, masked."""

    def __init__(self, checkpoint: str, dtype: str, threads: int) -> None:
        from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        torch.set_num_threads(threads)
        self._dtype = getattr(torch, dtype)
        model = Qwen2AudioForConditionalGeneration.from_pretrained(
            checkpoint, dtype=self._dtype, attn_implementation="sdpa"
        )
        self.tower = model.eval().model.audio_tower
        self.feature_extractor = WhisperFeatureExtractor.from_pretrained(checkpoint)

    def features(self, clips: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """What the processor makes of clips: 3000 mel frames each, and which of them are audio."""
        made = self.feature_extractor(
            clips,
            sampling_rate=RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return made["input_features"], made["attention_mask"]

    @torch.inference_mode()
    def means(self, clips: list[np.ndarray]) -> np.ndarray:
        """The mean of each clip's own rows. The steps are those of `Qwen2AudioModel.forward`."""
        from transformers.masking_utils import create_bidirectional_mask

        features, feature_mask = self.features(clips)
        lengths, tokens = self.tower._get_feat_extract_output_lengths(feature_mask.sum(-1))
        rows = (features.shape[-1] - 2) // 2 + 1
        mask = create_bidirectional_mask(
            config=self.tower.config,
            inputs_embeds=torch.zeros(len(clips), rows, 1, dtype=self._dtype),
            attention_mask=(torch.arange(rows) < lengths[:, None]).long(),
        )
        out = self.tower(features, attention_mask=mask).last_hidden_state.float()
        means = [clip[:count].mean(0) for clip, count in zip(out, tokens.tolist(), strict=True)]
        return torch.stack(means).numpy()


def composite_tower(checkpoint: str, seconds: float, count: int, dtype: str, threads: int) -> Turn:
    """All clips in one padded batch."""
    model = Composite(checkpoint, dtype, threads)
    clips = sounds(seconds, count)

    def turn() -> dict[str, Any]:
        return {"first": model.means(clips)[0].tolist()}

    model.means(clips[:1])
    return turn


def composite_folder(
    checkpoint: str, work: str, lengths: list[float], dtype: str, threads: int, batch: int = 8
) -> Turn:
    """The loop that the model's card suggests: librosa, the processor, padded batches."""
    import librosa

    model = Composite(checkpoint, dtype, threads)
    paths = files(Path(work), tuple(lengths))

    def load(path: Path) -> np.ndarray:
        return librosa.load(path, sr=RATE, mono=True)[0][: 30 * RATE]

    def turn(start: int, stop: int) -> dict[str, Any]:
        made = [
            model.means([load(path) for path in paths[place : min(place + batch, stop)]])
            for place in range(start, stop, batch)
        ]
        return {"first": made[0][0].tolist(), "vectors": sum(map(len, made))}

    model.means([load(paths[0])])
    return turn


def write_ctranslate2(checkpoint: str, target: str) -> Turn:
    """A Whisper of the ear's geometry and weights, int8, with a decoder of one small vocabulary.

    Whisper large-v3's encoder has the layers of Qwen2-Audio's, so CTranslate2's own converter reads
    them; only its encoder is run.
    """
    from ctranslate2.converters.transformers import WhisperLoader
    from ctranslate2.specs.whisper_spec import WhisperSpec
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    encoder = Composite(checkpoint, "float32", 1).tower
    audio = encoder.config
    words = ["<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"]
    config = WhisperConfig(
        d_model=audio.d_model,
        num_mel_bins=audio.num_mel_bins,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=audio.encoder_attention_heads,
        decoder_attention_heads=audio.encoder_attention_heads,
        vocab_size=len(words),
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    decoder = WhisperForConditionalGeneration(config).eval()
    heads = audio.encoder_attention_heads
    spec = WhisperSpec(audio.encoder_layers, heads, 1, heads)
    loader = WhisperLoader()
    with torch.no_grad():
        loader.set_encoder(spec.encoder, encoder)
        loader.set_decoder(spec.decoder, decoder.model.decoder)
        loader.set_linear(spec.decoder.projection, decoder.proj_out)
    spec.register_vocabulary(words)
    spec.config.alignment_heads = [(0, 0)]
    spec.config.suppress_ids, spec.config.suppress_ids_begin, spec.config.lang_ids = [], [], []

    def turn() -> None:
        spec.validate()
        spec.optimize(quantization="int8")
        Path(target).mkdir(parents=True, exist_ok=True)
        spec.save(target)

    return turn


def ctranslate2_int8(model: str, checkpoint: str, seconds: float, count: int, threads: int) -> Turn:
    """The encoder over 30 s windows, as Whisper takes them."""
    import ctranslate2
    from transformers import WhisperFeatureExtractor

    whisper = ctranslate2.models.Whisper(
        model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
    )
    extractor = WhisperFeatureExtractor.from_pretrained(checkpoint)
    clips = sounds(seconds, count)

    def turn(of: int = count) -> dict[str, Any]:
        made = extractor(clips[:of], sampling_rate=RATE, padding="max_length", return_tensors="np")[
            "input_features"
        ]
        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(made, np.float32))
        out = np.asarray(whisper.encode(features, to_cpu=True))
        return {"shape": list(out.shape), "compute_type": whisper.compute_type}

    turn(1)
    return turn


class _Tower(torch.nn.Module):
    """transformers' encoder without what its decorators do around it, to be traced."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, features: Tensor) -> Tensor:
        tower, gelu = self.tower, torch.nn.functional.gelu
        frames = gelu(tower.conv2(gelu(tower.conv1(features)))).permute(0, 2, 1)
        hidden_states = frames + tower.embed_positions.weight
        for layer in tower.layers:
            hidden_states = layer(hidden_states, None)
        pooled = tower.avg_pooler(hidden_states.permute(0, 2, 1)).permute(0, 2, 1)
        return tower.layer_norm(pooled)


def write_openvino(checkpoint: str, target: str) -> Turn:
    """The encoder for one window of 30 s, in float32: the precision is chosen on loading it."""
    import openvino

    composite = Composite(checkpoint, "float32", torch.get_num_threads())
    bins = composite.tower.config.num_mel_bins

    def turn() -> None:
        shape = (1, bins, 3000)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing keeps lengths as they are: that is meant
            model = openvino.convert_model(
                _Tower(composite.tower), example_input=torch.zeros(shape), input=[shape]
            )
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, target, compress_to_fp16=False)

    return turn


def openvino_tower(
    model: str, checkpoint: str, seconds: float, count: int, dtype: str, threads: int
) -> Turn:
    """One window after another: one request with all threads, the fastest way of a CPU plugin."""
    import openvino
    from transformers import WhisperFeatureExtractor

    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = compiled.create_infer_request()
    extractor = WhisperFeatureExtractor.from_pretrained(checkpoint)
    clips = sounds(seconds, count)
    precision = str(compiled.get_property("INFERENCE_PRECISION_HINT"))

    def turn() -> dict[str, Any]:
        means = []
        for clip in clips:
            made = extractor(clip, sampling_rate=RATE, padding="max_length", return_tensors="np")
            out = request.infer({0: made["input_features"]})[0][0]
            means.append(out.mean(0))
        return {"first": means[0].tolist(), "precision": precision}

    turn()
    return turn

"""Workloads of the peers: transformers' composite model, CTranslate2, OpenVINO.

All have the same clips, weights and number of threads. A run starts from samples (in benchmark
`folder`, from files), so it includes the log-mel spectrogram.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .synthetic_audio import SAMPLING_RATE, recording_files, synthetic_clips
from .worker import Workload

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
    """transformers' audio tower in the composite model: padded to 30 s, with attention mask."""

    def __init__(self, checkpoint: str, dtype: str, threads: int, device: str = "cpu") -> None:
        from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        torch.set_num_threads(threads)
        self._dtype, self._device = getattr(torch, dtype), device
        model = Qwen2AudioForConditionalGeneration.from_pretrained(
            checkpoint, dtype=self._dtype, attn_implementation="sdpa"
        )
        self.tower = model.eval().model.audio_tower.to(device)
        self.feature_extractor = WhisperFeatureExtractor.from_pretrained(checkpoint)

    def features(self, clips: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Log-mel [clips, bins, 3000] as the processor returns it, and the mask of audio frames."""
        processed = self.feature_extractor(
            clips,
            sampling_rate=SAMPLING_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return processed["input_features"], processed["attention_mask"]

    def means(self, clips: list[np.ndarray]) -> np.ndarray:
        """Mean of each clip's rows [clips, width]."""
        return self.means_of(*self.features(clips))

    @torch.inference_mode()
    def means_of(self, features: Tensor, feature_mask: Tensor) -> np.ndarray:
        """The same of processed clips, with the steps of `Qwen2AudioModel.forward`."""
        from transformers.masking_utils import create_bidirectional_mask

        features, feature_mask = features.to(self._device), feature_mask.to(self._device)
        lengths, tokens = self.tower._get_feat_extract_output_lengths(feature_mask.sum(-1))
        frames = (features.shape[-1] - 2) // 2 + 1
        mask = create_bidirectional_mask(
            config=self.tower.config,
            inputs_embeds=torch.zeros(
                len(features), frames, 1, dtype=self._dtype, device=self._device
            ),
            attention_mask=(torch.arange(frames, device=self._device) < lengths[:, None]).long(),
        )
        output = self.tower(features, attention_mask=mask).last_hidden_state.float()
        means = [rows[:count].mean(0) for rows, count in zip(output, tokens.tolist(), strict=True)]
        return torch.stack(means).cpu().numpy()


def composite_tower(
    checkpoint: str, seconds: float, count: int, dtype: str, threads: int
) -> Workload:
    """Mean of `audio_tower` of clips in memory, in one padded batch."""
    model = Composite(checkpoint, dtype, threads)
    clips = synthetic_clips(seconds, count)

    def run() -> dict[str, Any]:
        return {"first": model.means(clips)[0].tolist()}

    model.means(clips[:1])
    return run


def composite_folder(
    checkpoint: str, work: str, lengths: list[float], dtype: str, threads: int, batch: int = 8
) -> Workload:
    """The loop of the model card: librosa, the processor, padded batches.

    Each run takes the files from `start` to `stop`.
    """
    import librosa

    model = Composite(checkpoint, dtype, threads)
    paths = recording_files(Path(work), tuple(lengths))

    def load(path: Path) -> np.ndarray:
        return librosa.load(path, sr=SAMPLING_RATE, mono=True)[0][: 30 * SAMPLING_RATE]

    def run(start: int, stop: int) -> dict[str, Any]:
        batches = [
            model.means([load(path) for path in paths[first : min(first + batch, stop)]])
            for first in range(start, stop, batch)
        ]
        return {"first": batches[0][0].tolist(), "vectors": sum(map(len, batches))}

    model.means([load(paths[0])])
    return run


def write_ctranslate2(checkpoint: str, target: str) -> Workload:
    """A Whisper model in int8 with the checkpoint's encoder and a minimal decoder.

    Whisper large-v3's encoder has the same layers as Qwen2-Audio's, so CTranslate2's converter
    accepts them. Only the encoder is run.
    """
    from ctranslate2.converters.transformers import WhisperLoader
    from ctranslate2.specs.whisper_spec import WhisperSpec
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    encoder = Composite(checkpoint, "float32", 1).tower
    audio = encoder.config
    vocabulary = ["<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"]
    config = WhisperConfig(
        d_model=audio.d_model,
        num_mel_bins=audio.num_mel_bins,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=audio.encoder_attention_heads,
        decoder_attention_heads=audio.encoder_attention_heads,
        vocab_size=len(vocabulary),
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
    spec.register_vocabulary(vocabulary)
    spec.config.alignment_heads = [(0, 0)]
    spec.config.suppress_ids, spec.config.suppress_ids_begin, spec.config.lang_ids = [], [], []

    def run() -> None:
        spec.validate()
        spec.optimize(quantization="int8")
        Path(target).mkdir(parents=True, exist_ok=True)
        spec.save(target)

    return run


def ctranslate2_int8(
    model: str, checkpoint: str, seconds: float, count: int, threads: int
) -> Workload:
    """The encoder over clips padded to 30 s, as Whisper requires, in one batch."""
    import ctranslate2
    from transformers import WhisperFeatureExtractor

    whisper = ctranslate2.models.Whisper(
        model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
    )
    extractor = WhisperFeatureExtractor.from_pretrained(checkpoint)
    clips = synthetic_clips(seconds, count)

    def run(clip_count: int = count) -> dict[str, Any]:
        log_mel = extractor(
            clips[:clip_count],
            sampling_rate=SAMPLING_RATE,
            padding="max_length",
            return_tensors="np",
        )["input_features"]
        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(log_mel, np.float32))
        output = np.asarray(whisper.encode(features, to_cpu=True))
        return {"shape": list(output.shape), "compute_type": whisper.compute_type}

    run(1)
    return run


class _Tower(torch.nn.Module):
    """transformers' encoder without its decorators, which can't be traced."""

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


def write_openvino(checkpoint: str, target: str) -> Workload:
    """The encoder for one window of 30 s, in float32: the precision is chosen when loading."""
    import openvino

    composite = Composite(checkpoint, "float32", torch.get_num_threads())
    bins = composite.tower.config.num_mel_bins

    def run() -> None:
        shape = (1, bins, 3000)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing fixes the length: intended
            model = openvino.convert_model(
                _Tower(composite.tower), example_input=torch.zeros(shape), input=[shape]
            )
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, target, compress_to_fp16=False)

    return run


def openvino_tower(
    model: str, checkpoint: str, seconds: float, count: int, dtype: str, threads: int
) -> Workload:
    """One window after another: one request with all threads, the fastest mode on a CPU."""
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
    clips = synthetic_clips(seconds, count)
    precision = str(compiled.get_property("INFERENCE_PRECISION_HINT"))

    def run() -> dict[str, Any]:
        means = []
        for clip in clips:
            log_mel = extractor(
                clip, sampling_rate=SAMPLING_RATE, padding="max_length", return_tensors="np"
            )["input_features"]
            output = request.infer({0: log_mel})[0][0]
            means.append(output.mean(0))
        return {"first": means[0].tolist(), "precision": precision}

    run()
    return run

"""Build the model, and write it as Qwen2-Audio checkpoints are written."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from .tokenizer import AUDIO, CHAT_TEMPLATE, END, token_id
from .whisper import encoder_weights

VOCABULARY = 1104  # the tokenizer's 1099 entries, rounded up as Qwen2 rounds its own
SHARDS = {"audio_tower.": 1, "multi_modal_projector.": 2, "language_model.": 2}


def config(tokenizer: Qwen2Tokenizer) -> Qwen2AudioConfig:
    """Whisper tiny's encoder and four small Qwen2 layers with grouped-query attention."""
    end = token_id(tokenizer, END)
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=80,
        d_model=384,
        encoder_layers=4,
        encoder_attention_heads=6,
        encoder_ffn_dim=1536,
    )
    text = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=896,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        max_window_layers=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return Qwen2AudioConfig(
        audio_config=audio,
        text_config=text,
        audio_token_index=token_id(tokenizer, AUDIO),
    )


def build(tokenizer: Qwen2Tokenizer, whisper: Path) -> Qwen2AudioForConditionalGeneration:
    """A model whose encoder is Whisper's and whose projector and text model are untrained."""
    model = Qwen2AudioForConditionalGeneration(config(tokenizer))
    tower = model.model.audio_tower
    tower.load_state_dict(encoder_weights(whisper), strict=True)
    return model


def on_disk(name: str) -> str:
    """The name that Qwen2-Audio checkpoints give a tensor of the model in memory."""
    for memory, disk in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.", ""),
    ):
        if name.startswith(memory):
            return disk + name.removeprefix(memory)
    return name


def _save_weights(model: Qwen2AudioForConditionalGeneration, folder: Path) -> None:
    shards: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        disk = on_disk(name)
        shard = next(number for prefix, number in SHARDS.items() if disk.startswith(prefix))
        shards.setdefault(shard, {})[disk] = tensor.detach().to(torch.bfloat16).contiguous()
    index: dict[str, str] = {}
    for number, tensors in sorted(shards.items()):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
        index |= dict.fromkeys(tensors, file)
    size = sum(t.numel() * t.element_size() for shard in shards.values() for t in shard.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=2) + "\n"
    )


def _save_as_published(processor: Qwen2AudioProcessor, folder: Path) -> None:
    """Files that the published checkpoints have and that transformers 5 has folded into others."""
    (folder / "processor_config.json").unlink()
    extractor = processor.feature_extractor.to_dict() | {"processor_class": "Qwen2AudioProcessor"}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(dict(sorted(extractor.items())), indent=2) + "\n"
    )
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def save(
    model: Qwen2AudioForConditionalGeneration, tokenizer: Qwen2Tokenizer, folder: Path
) -> None:
    """Write everything a stock `from_pretrained` needs; each file appears whole or not at all."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    extractor = WhisperFeatureExtractor(feature_size=80, return_attention_mask=True)
    processor = Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)
    processor.save_pretrained(draft)
    _save_as_published(processor, draft)
    written = config(tokenizer)
    written.architectures = ["Qwen2AudioForConditionalGeneration"]
    written.dtype = torch.bfloat16
    written.save_pretrained(draft)
    end = token_id(tokenizer, END)
    GenerationConfig(
        bos_token_id=end, eos_token_id=end, pad_token_id=end, do_sample=False, max_new_tokens=96
    ).save_pretrained(draft)
    _save_weights(model, draft)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(draft.iterdir()):
        file.replace(folder / file.name)
    draft.rmdir()

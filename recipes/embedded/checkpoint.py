"""Model of the embedded checkpoint, and writing it in the format of Qwen2-Audio's checkpoints."""

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

VOCABULARY = 1104  # the tokenizer's 1099 entries, rounded up as in Qwen2
SHARDS = {"audio_tower.": 1, "multi_modal_projector.": 2, "language_model.": 2}


def config(tokenizer: Qwen2Tokenizer) -> Qwen2AudioConfig:
    """Dimensions: Whisper tiny's encoder, four small Qwen2 layers with grouped-query attention."""
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
    """A model with Whisper's encoder, and an untrained projector and text model."""
    model = Qwen2AudioForConditionalGeneration(config(tokenizer))
    tower = model.model.audio_tower
    tower.load_state_dict(encoder_weights(whisper), strict=True)
    return model


def stored_name(name: str) -> str:
    """Name in Qwen2-Audio's checkpoint files of a tensor of the model in memory."""
    for prefix, stored_prefix in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.", ""),
    ):
        if name.startswith(prefix):
            return stored_prefix + name.removeprefix(prefix)
    return name


def _save_weights(model: Qwen2AudioForConditionalGeneration, folder: Path) -> None:
    shards: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        stored = stored_name(name)
        shard = next(number for prefix, number in SHARDS.items() if stored.startswith(prefix))
        shards.setdefault(shard, {})[stored] = tensor.detach().to(torch.bfloat16).contiguous()
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
    """Write the files of the published checkpoints that transformers 5 merges into others."""
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
    """Write everything that `from_pretrained` needs; each file is renamed when it is complete."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    extractor = WhisperFeatureExtractor(feature_size=80, return_attention_mask=True)
    processor = Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)
    processor.save_pretrained(draft)
    _save_as_published(processor, draft)
    model_config = config(tokenizer)
    model_config.architectures = ["Qwen2AudioForConditionalGeneration"]
    model_config.dtype = torch.bfloat16
    model_config.save_pretrained(draft)
    end = token_id(tokenizer, END)
    GenerationConfig(
        bos_token_id=end, eos_token_id=end, pad_token_id=end, do_sample=False, max_new_tokens=96
    ).save_pretrained(draft)
    _save_weights(model, draft)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(draft.iterdir()):
        file.replace(folder / file.name)
    draft.rmdir()

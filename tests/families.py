"""Every supported family: a tiny random checkpoint of it, and transformers' own model at each tap.

`tests/models/test_families.py` runs the same tests for each entry of `CASES`. To add a family, add
an entry here: how its checkpoint is made, and where transformers' model has the modules.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import AddedToken, AutoProcessor, AutoTokenizer

from checkpoints import EMBEDDED, END_OF_TEXT_ID, random_checkpoint, randomise
from tekken import write_tekken

DATA = Path(__file__).parent / "data"


def _text_and_audio(processor: Any, clip: np.ndarray, prompt_text: str) -> dict[str, Tensor]:
    """A processor's output for a rendered prompt."""
    rate = {"sampling_rate": 16_000, "return_tensors": "pt"}
    return dict(processor(text=[prompt_text], audio=[clip], **rate))


def _rendered_turns(processor: Any, turns: Any) -> str:
    """Turns, one with audio, through the processor's chat template."""
    rendered = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return str(rendered)


def _masked_frames(inputs: Mapping[str, Tensor], _: np.ndarray) -> int:
    """Mel frames that hold audio, by the one mask that isn't of tokens."""
    masks = {name for name in inputs if name.endswith("_mask")}
    (name,) = masks - {"attention_mask"} if "input_ids" in inputs else masks
    return int(inputs[name].sum())


@dataclass(frozen=True)
class Case:
    """A family's tiny checkpoint, and how transformers computes with it.

    Attributes:
        model_type: in config.json.
        model_class: transformers' class, by name.
        write: writes a checkpoint with random weights and a processor to a folder.
        longest: seconds of the longest clip that is given to transformers at once.
        encoder_rows: rows of audio at `encoder.k` of so many mel frames.
        tower_rows: rows of audio at `audio_tower`, where these are fewer than audio tokens.
        inputs, rendered_turns, mel_frames: what the processor makes of a clip and a rendered
            prompt, and of turns of a conversation; frames of its output that hold audio.
        tower, projector, language_model: where modules are in transformers' model; empty where it
            has none.
        ignored: a tensor that files may have besides; empty if there is none.
        stored_class: transformers' class that writes it, where it isn't `model_class`.
        read_processor: transformers' processor, where AutoProcessor can't read it.
        projector_end: the last module of the projector, where `projector` is only its first.
        unsupported: changes of config.json, with the field that an error then names.
    """

    model_type: str
    model_class: str
    write: Callable[[Path], object]
    longest: float = 30.0
    encoder_rows: Callable[[int], int] = lambda mel_frames: (mel_frames - 1) // 2 + 1
    tower_rows: Callable[[int], int] | None = None
    inputs: Callable[[Any, np.ndarray, str], dict[str, Tensor]] = _text_and_audio
    rendered_turns: Callable[[Any, Any], str] = _rendered_turns
    mel_frames: Callable[[Mapping[str, Tensor], np.ndarray], int] = _masked_frames
    tower: str = "model.audio_tower"
    projector: str = "model.multi_modal_projector"
    language_model: str = "model.language_model"
    ignored: str = ""
    stored_class: str = ""
    read_processor: Callable[[Path], Any] = AutoProcessor.from_pretrained
    projector_end: str = ""
    unsupported: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


_TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'audio' %}AUDIO\
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def write_checkpoint(
    folder: Path, model_class: str, config: Any, processor: Any, embedding_scale: float = 1.0
) -> None:
    """A checkpoint with random weights, as transformers writes it; the same ones every time.

    Args:
        embedding_scale: of token embeddings, chosen so that answers aren't one token repeated:
            where they are the head, too, a token would be most like itself.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = getattr(transformers, model_class)(config).float().eval()
        randomise(model, torch.Generator().manual_seed(0))
    if embedding_scale != 1.0:  # Qwen2.5-Omni's whole model doesn't say where they are
        model.get_input_embeddings().weight.data.mul_(embedding_scale)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    shutil.copy(EMBEDDED / "generation_config.json", folder)


def tokenizer_with(*tokens: str) -> Any:
    """The embedded checkpoint's tokenizer, with further control tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(EMBEDDED)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer


def qwen2_config(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """Of a language model of two layers for a tokenizer."""
    return {
        "model_type": "qwen2",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096,
        "eos_token_id": END_OF_TEXT_ID,
        "tie_word_embeddings": False,
        **changes,
    }


def _write_flamingo(folder: Path, name: str, *markers: str) -> None:
    tokenizer = tokenizer_with("<sound>", *markers)
    config = getattr(transformers, f"{name}Config")(
        audio_config={
            "model_type": "audioflamingo3_encoder",
            "num_mel_bins": 80,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        },
        text_config=qwen2_config(tokenizer),
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    processor = getattr(transformers, f"{name}Processor")(
        transformers.WhisperFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=_TEMPLATE.replace("AUDIO", "<sound>"),
    )
    write_checkpoint(folder, f"{name}ForConditionalGeneration", config, processor)


def _thirteen_a_second(mel_frames: int) -> int:
    return mel_frames // 100 * 13 + -(-(mel_frames % 100) // 8)


_ASR_TEMPLATE = """<|im_start|>system
{% for message in messages if message['role'] == 'system' %}{% if message['content'] is string %}\
{{ message['content'] }}{% else %}{% for part in message['content'] %}{{ part['text'] }}\
{% endfor %}{% endif %}{% endfor %}<|im_end|>
<|im_start|>user
{% for message in messages if message['content'] is not string %}\
{% for part in message['content'] if part['type'] == 'audio' %}\
<|audio_start|><|audio_pad|><|audio_end|>{% endfor %}{% endfor %}<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""As the released checkpoints': text of users is dropped."""


def _write_qwen3_asr(folder: Path) -> None:
    tokenizer = omni_tokenizer()
    text = qwen2_config(
        tokenizer,
        model_type="qwen3",
        head_dim=32,
        intermediate_size=160,
        tie_word_embeddings=True,
    )
    config = transformers.Qwen3ASRConfig(
        audio_config=qwen3_encoder_config("qwen3_asr_encoder"),
        text_config=text,
        audio_token_id=tokenizer.audio_token_id,
        eos_token_id=END_OF_TEXT_ID,
    )
    processor = transformers.Qwen3ASRProcessor(
        transformers.Qwen3ASRFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=_ASR_TEMPLATE,
    )
    write_checkpoint(folder, "Qwen3ASRForConditionalGeneration", config, processor, 0.05)


class _AudioProcessor:
    """Without processors of images and videos, which need torchvision."""

    def check_argument_for_proper_class(self, _: str, argument: Any) -> type:
        """Anything is."""
        return type(argument)

    @classmethod
    def read(cls, folder: Path) -> Any:
        """Of the files that are for text and audio."""
        processor: Any = cls
        return processor(
            None,
            None,
            transformers.WhisperFeatureExtractor.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
            (folder / "chat_template.jinja").read_text(encoding="utf-8"),
        )


class _Qwen3OmniProcessor(_AudioProcessor, transformers.Qwen3OmniMoeProcessor):
    """Of text and audio."""


def _write_qwen3_omni(folder: Path) -> None:
    """With images, and without the parts that speak."""
    tokenizer = omni_tokenizer()
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}
    text = qwen2_config(
        tokenizer,
        model_type="qwen3_omni_moe_text",
        head_dim=16,
        moe_intermediate_size=24,
        num_experts=6,
        num_experts_per_tok=2,
        rope_parameters={**rotary, "mrope_interleaved": True},
    )
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": text["hidden_size"],
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 16,
    }
    thinker = {
        "audio_config": qwen3_encoder_config("qwen3_omni_moe_audio_encoder"),
        "text_config": text,
        "vision_config": vision,
        "audio_token_id": tokenizer.audio_token_id,
        "image_token_id": tokenizer.image_token_id,
        "video_token_id": tokenizer.video_token_id,
        "vision_start_token_id": tokenizer.vision_bos_token_id,
    }
    config = transformers.Qwen3OmniMoeConfig(thinker_config=thinker, enable_audio_output=False)
    template = _TEMPLATE.replace("AUDIO", "<|audio_start|><|audio_pad|><|audio_end|>")
    write_checkpoint(folder, "Qwen3OmniMoeForConditionalGeneration", config, tokenizer)
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=300)
    extractor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def omni_tokenizer() -> Any:
    """With the names of tokens that processors of Qwen3 look up."""
    names = {"audio": ("pad", "start", "end"), "vision": ("", "start", "end")}
    tokens = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    for kind, parts in names.items():
        for name, part in zip(("token", "bos_token", "eos_token"), parts, strict=True):
            if part:
                tokens[f"{kind}_{name}"] = f"<|{kind}_{part}|>"
    return AutoTokenizer.from_pretrained(EMBEDDED, extra_special_tokens=tokens)


def qwen3_encoder_config(model_type: str) -> dict[str, Any]:
    """Of an encoder of two layers."""
    return {
        "model_type": model_type,
        "num_mel_bins": 80,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "downsample_hidden_size": 12,
        "output_dim": 48,
    }


_OMNI_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


class _Qwen25OmniProcessor(_AudioProcessor, transformers.Qwen2_5OmniProcessor):
    """Of text and audio."""


def _write_qwen2_5_omni(folder: Path) -> None:
    """A whole model: with images, and the parts that speak."""
    tokenizer: Any = AutoTokenizer.from_pretrained(EMBEDDED, extra_special_tokens=_OMNI_TOKENS)
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]}
    text = qwen2_config(tokenizer, model_type="qwen2_5_omni_text", rope_parameters=rotary)
    config = transformers.Qwen2_5OmniConfig(
        thinker_config={
            "audio_config": {
                "num_mel_bins": 80,
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "output_dim": text["hidden_size"],
            },
            "text_config": text,
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "out_hidden_size": text["hidden_size"],
            },
            "audio_token_index": tokenizer.audio_token_id,
            "image_token_index": tokenizer.image_token_id,
            "video_token_index": tokenizer.video_token_id,
            "vision_start_token_id": tokenizer.vision_bos_token_id,
        },
        talker_config={
            "vocab_size": 16,
            "embedding_size": text["hidden_size"],
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "rope_parameters": {**rotary, "mrope_section": [2, 1, 1]},
        },
        token2wav_config={
            "dit_config": {
                "hidden_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "head_dim": 4,
                "emb_dim": 8,
                "enc_emb_dim": 8,
                "enc_dim": 8,
                "enc_channels": [8] * 5,
                "enc_attention_channels": 4,
                "enc_se_channels": 4,
                "num_embeds": 9,
            },
            "bigvgan_config": {"upsample_initial_channel": 64},
        },
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=300)
    template = _TEMPLATE.replace("AUDIO", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    write_checkpoint(folder, "Qwen2_5OmniForConditionalGeneration", config, tokenizer)
    extractor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write_whisper(folder: Path) -> None:
    config = transformers.WhisperConfig(
        num_mel_bins=80,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    write_checkpoint(folder, "WhisperForConditionalGeneration", config, extractor)


_GLM_TEMPLATE = """{% for message in messages %}<|{{ message['role'] }}|>
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'audio' %}\
<|begin_of_audio|><|pad|><|end_of_audio|><|user|>
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


def _write_glm_asr(folder: Path) -> None:
    roles = ("<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|end_of_audio|>")
    tokenizer = tokenizer_with("<|pad|>", *roles)
    config = transformers.GlmAsrConfig(
        audio_config={
            "model_type": "glmasr_encoder",
            "num_mel_bins": 80,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        },
        text_config=qwen2_config(tokenizer, model_type="llama", tie_word_embeddings=True),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    processor = transformers.GlmAsrProcessor(
        transformers.WhisperFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=_GLM_TEMPLATE,
    )
    write_checkpoint(folder, "GlmAsrForConditionalGeneration", config, processor, 0.05)


def _write_voxtral(folder: Path) -> None:
    vocabulary = write_tekken(folder)
    config = transformers.VoxtralConfig(
        audio_config={
            "model_type": "voxtral_encoder",
            "num_mel_bins": 80,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        },
        text_config=qwen2_config(
            range(vocabulary), model_type="llama", head_dim=16, eos_token_id=2, rope_theta=1e8
        ),
        audio_token_id=24,
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    write_checkpoint(folder, "VoxtralForConditionalGeneration", config, extractor, 3.0)
    settings = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")


VOXTRAL_PROMPTS = json.loads((DATA / "voxtral_prompts.json").read_text(encoding="utf-8"))
"""What mistral-common makes of conversations: see make_voxtral_prompts.py beside it."""


def _voxtral_inputs(processor: Any, clip: np.ndarray, prompt_text: str) -> dict[str, Tensor]:
    """What the processor does for conversations, of a prompt that is already there."""
    options = {**processor.audio_kwargs}
    features = processor._retrieve_input_features([clip], **options)
    expanded = prompt_text.replace("[AUDIO]", "[AUDIO]" * 375 * len(features))
    text = {"add_special_tokens": False, "return_tensors": "pt"}
    return {**processor.tokenizer(expanded, **text), "input_features": features}


def _voxtral_turns(processor: Any, turns: Any) -> str:
    (ids,) = (prompt["ids"] for prompt in VOXTRAL_PROMPTS if prompt["messages"] == turns)
    text = str(processor.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False))
    return text.replace("[AUDIO]" * 375, "[AUDIO]")


CASES = {
    case.model_type: case
    for case in (
        Case(
            "qwen2_audio",
            "Qwen2AudioForConditionalGeneration",
            lambda folder: random_checkpoint(
                folder, width=32, encoder_layers=2, lm_width=48, lm_layers=2, shards=1
            ),
            unsupported={
                "audio_config__max_source_positions": (750, "750 positions"),
                "text_config__layer_types": (["sliding_attention"] * 2, "sliding_attention"),
                "text_config__model_type": ("llama", "llama"),
            },
        ),
        Case(
            "audioflamingo3",
            "AudioFlamingo3ForConditionalGeneration",
            lambda folder: _write_flamingo(folder, "AudioFlamingo3"),
            longest=600.0,
            unsupported={"audio_config__max_source_positions": (750, "750 positions")},
        ),
        Case(
            "glmasr",
            "GlmAsrForConditionalGeneration",
            _write_glm_asr,
            longest=600.0,
            unsupported={
                "audio_config__max_position_embeddings": (750, "750 positions"),
                "audio_config__intermediate_size": (64, "intermediate_size=64"),
                "audio_config__rope_parameters": (
                    {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
                    "'dynamic'",
                ),
                "text_config__model_type": ("qwen2", "qwen2"),
            },
        ),
        Case(
            "musicflamingo",
            "MusicFlamingoForConditionalGeneration",
            lambda folder: _write_flamingo(
                folder, "MusicFlamingo", "<|sound_bos|>", "<|sound_eos|>"
            ),
            longest=1200.0,
            unsupported={
                "rope_parameters__rope_theta": (600.0, "rope_theta=600"),
                "rope_parameters": (
                    {"rope_type": "linear", "rope_theta": 1200.0, "factor": 2.0},
                    "rope_type='linear'",
                ),
            },
        ),
        Case(
            "qwen2_5_omni",
            "Qwen2_5OmniThinkerForConditionalGeneration",
            _write_qwen2_5_omni,
            longest=300.0,
            projector="model.audio_tower.proj",
            ignored="thinker.visual.merger.ln_q.weight",
            stored_class="Qwen2_5OmniForConditionalGeneration",
            read_processor=_Qwen25OmniProcessor.read,
            unsupported={
                "thinker_config__audio_config__n_window": (1600, "n_window=1600"),
                "thinker_config__audio_config__max_source_positions": (99, "99 positions"),
                "thinker_config__text_config__model_type": ("llama", "llama"),
                "thinker_config__text_config__layer_types": (
                    ["sliding_attention"] * 2,
                    "sliding_attention",
                ),
                "thinker_config": ([], "thinker_config=[]"),
            },
        ),
        Case(
            "qwen3_asr",
            "Qwen3ASRForConditionalGeneration",
            _write_qwen3_asr,
            longest=1200.0,
            encoder_rows=_thirteen_a_second,
            unsupported={
                "audio_config__n_window": (100, "n_window=100"),
                "audio_config__n_window_infer": (850, "n_window_infer=850"),
            },
        ),
        Case(
            "qwen3_omni_moe",
            "Qwen3OmniMoeThinkerForConditionalGeneration",
            _write_qwen3_omni,
            longest=2400.0,
            encoder_rows=_thirteen_a_second,
            projector="model.audio_tower.proj1",
            projector_end="model.audio_tower.proj2",
            ignored="thinker.visual.patch_embed.proj.weight",
            stored_class="Qwen3OmniMoeForConditionalGeneration",
            read_processor=_Qwen3OmniProcessor.read,
            unsupported={
                "thinker_config__audio_config__n_window": (100, "n_window=100"),
                "thinker_config__text_config__mlp_only_layers": ([1], r"mlp_only_layers=[1]"),
                "thinker_config__text_config__decoder_sparse_step": (2, "decoder_sparse_step=2"),
                "thinker_config__text_config__model_type": ("llama", "llama"),
            },
        ),
        Case(
            "whisper",
            "WhisperForConditionalGeneration",
            _write_whisper,
            tower="model.encoder",
            projector="",
            language_model="",
            ignored="proj_out.weight",
            read_processor=transformers.WhisperFeatureExtractor.from_pretrained,
            unsupported={"max_source_positions": (750, "750 positions")},
        ),
        Case(
            "voxtral",
            "VoxtralForConditionalGeneration",
            _write_voxtral,
            longest=600.0,
            tower_rows=lambda mel_frames: -(-mel_frames // 8),
            inputs=_voxtral_inputs,
            rendered_turns=_voxtral_turns,
            mel_frames=lambda _, clip: -(-len(clip) // 160),
            unsupported={
                "audio_config__max_source_positions": (750, "750 positions"),
                "audio_config__intermediate_size": (64, "intermediate_size=64"),
                "text_config__model_type": ("qwen2", "qwen2"),
            },
        ),
    )
}


class TransformersReference:
    """transformers' own model and processor of a checkpoint, one clip at a time."""

    def __init__(self, case: Case, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.case = case
        self.model: Any = getattr(transformers, case.model_class).from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa"
        )
        self.model.eval()
        self.processor: Any = case.read_processor(folder)

    def inputs(self, clip: np.ndarray, prompt_text: str) -> dict[str, Tensor]:
        """The processor's output for a rendered prompt; that of a feature extractor alone where
        there is no language model."""
        if not self.case.language_model:
            options = {"sampling_rate": 16_000, "return_attention_mask": True}
            return dict(self.processor(clip, **options, return_tensors="pt"))
        return self.case.inputs(self.processor, clip, prompt_text)

    @torch.inference_mode()
    def taps(self, clip: np.ndarray, prompt_text: str) -> dict[str, np.ndarray]:
        """The rows of every tap, without padding: what hooks see of modules' inputs and outputs."""
        case, inputs = self.case, self.inputs(clip, prompt_text)
        inputs["input_features"] = inputs["input_features"].to(self.model.dtype)
        seen: dict[str, Tensor] = {}
        tower, projector, text = map(
            self.model.get_submodule, (case.tower, case.projector, case.language_model)
        )
        hooks = _layer_hooks(seen, "encoder", tower.layers)
        if case.language_model:
            end = self.model.get_submodule(case.projector_end or case.projector)
            hooks += [
                _hook(seen, "audio_tower", projector, on_input=True),
                _hook(seen, "projector", end),
                *_layer_hooks(seen, "lm", text.layers),
                _hook(seen, "lm.norm", text.norm),
            ]
        else:
            hooks.append(_hook(seen, "audio_tower", tower.layer_norm))
        try:
            (self.model if case.language_model else tower)(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        mel = case.mel_frames(inputs, clip)
        features = inputs["input_features"]  # of each chunk, (bins, frames)
        seen["mel"] = features.transpose(1, 2).reshape(-1, features.shape[1])
        rows = case.encoder_rows(mel)
        counts = {"mel": mel, "encoder": rows, "audio_tower": rows}
        if case.language_model:
            tokens = int((inputs["input_ids"] == self.audio_token_id).sum())
            pooled = tokens if case.tower_rows is None else case.tower_rows(mel)
            counts |= {"audio_tower": pooled, "projector": tokens}
            counts["lm"] = inputs["input_ids"].shape[1]
        return {
            tap: rows[: counts[tap.split(".")[0]]].float().numpy() for tap, rows in seen.items()
        }

    @torch.inference_mode()
    def generate(self, clip: np.ndarray, prompt_text: str, max_new_tokens: int) -> tuple[int, ...]:
        """Greedily generated token ids."""
        inputs = self.inputs(clip, prompt_text)
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())

    @property
    def audio_token_id(self) -> int:
        """Of the placeholder for a row of audio."""
        return int(self.processor.tokenizer.convert_tokens_to_ids(self.processor.audio_token))


def _layer_hooks(seen: dict[str, Tensor], stage: str, layers: Sequence[nn.Module]) -> list[Any]:
    outputs = [_hook(seen, f"{stage}.{k}", layer) for k, layer in enumerate(layers, start=1)]
    return [_hook(seen, f"{stage}.0", layers[0], on_input=True), *outputs]


def _hook(seen: dict[str, Tensor], tap: str, module: nn.Module, *, on_input: bool = False) -> Any:
    """Record a module's input or output as rows, the chunks of a clip one after another."""

    def store(value: Any) -> None:
        rows = value[0] if isinstance(value, tuple) else value
        seen[tap] = rows.reshape(-1, rows.shape[-1]).clone()

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    if on_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(lambda _, __, output: store(output))

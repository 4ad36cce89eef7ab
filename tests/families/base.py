"""A family's case for the tests, and what the checkpoints of several are made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AddedToken, AutoProcessor, AutoTokenizer

from checkpoints import EMBEDDED, END_OF_TEXT_ID, randomise


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


TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
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


class AudioProcessor:
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

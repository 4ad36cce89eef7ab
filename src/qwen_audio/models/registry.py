"""The families that are supported, and which of them a config.json is of."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from qwen_audio.errors import CheckpointError

if TYPE_CHECKING:
    from .family import Family

__all__ = ["FAMILIES", "FamilyEntry", "family_entry", "open_family"]


@dataclass(frozen=True)
class FamilyEntry:
    """A family, of which nothing is imported before one of its checkpoints is opened.

    Attributes:
        title: such as "Qwen2-Audio".
        model_types: in config.json.
        architecture: transformers' class; decides where a config.json has another model type.
        module, name: where its `Family` is, below `families`.
        hub_models: checkpoints on the hub, and their number of parameters, such as "8.4B".
        license: of these checkpoints, where it is known for certain.
    """

    title: str
    model_types: tuple[str, ...]
    architecture: str
    module: str
    name: str
    hub_models: Mapping[str, str]
    license: str = "see the model card"

    def load(self) -> type[Family]:
        """The family's class."""
        module = importlib.import_module(f"qwen_audio.models.families.{self.module}")
        return cast("type[Family]", getattr(module, self.name))


FAMILIES = (
    FamilyEntry(
        "Qwen2-Audio",
        ("qwen2_audio",),
        "Qwen2AudioForConditionalGeneration",
        "qwen2_audio",
        "Qwen2Audio",
        {"Qwen/Qwen2-Audio-7B": "8.4B", "Qwen/Qwen2-Audio-7B-Instruct": "8.4B"},
        "Apache-2.0",
    ),
    FamilyEntry(
        "Audio Flamingo 3",
        ("audioflamingo3",),
        "AudioFlamingo3ForConditionalGeneration",
        "audio_flamingo_3",
        "AudioFlamingo3",
        {"nvidia/audio-flamingo-3-hf": "8.3B", "nvidia/music-flamingo-hf": "8.3B"},
        "non-commercial research; see the model card",
    ),
    FamilyEntry(
        "Music Flamingo",
        ("musicflamingo",),
        "MusicFlamingoForConditionalGeneration",
        "music_flamingo",
        "MusicFlamingo",
        {"nvidia/music-flamingo-2601-hf": "8.3B", "nvidia/audio-flamingo-next-hf": "8B"},
    ),
    FamilyEntry(
        "Qwen2.5-Omni",
        ("qwen2_5_omni", "qwen2_5_omni_thinker"),
        "Qwen2_5OmniForConditionalGeneration",
        "qwen2_5_omni",
        "Qwen25Omni",
        {"Qwen/Qwen2.5-Omni-7B": "10.7B", "Qwen/Qwen2.5-Omni-3B": "5.5B"},
    ),
    FamilyEntry(
        "Qwen3-ASR",
        ("qwen3_asr",),
        "Qwen3ASRForConditionalGeneration",
        "qwen3_asr",
        "Qwen3ASR",
        {
            "Qwen/Qwen3-ASR-0.6B-hf": "0.8B",
            "Qwen/Qwen3-ASR-1.7B-hf": "2.0B",
            "Qwen/Qwen3-ASR-0.6B": "0.8B",
            "Qwen/Qwen3-ASR-1.7B": "2.0B",
        },
    ),
    FamilyEntry(
        "Qwen3-Omni",
        ("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
        "Qwen3OmniMoeForConditionalGeneration",
        "qwen3_omni",
        "Qwen3Omni",
        {
            "Qwen/Qwen3-Omni-30B-A3B-Instruct": "35B",
            "Qwen/Qwen3-Omni-30B-A3B-Thinking": "32B",
            "Qwen/Qwen3-Omni-30B-A3B-Captioner": "32B",
        },
    ),
    FamilyEntry(
        "Whisper",
        ("whisper",),
        "WhisperForConditionalGeneration",
        "whisper",
        "Whisper",
        {
            "openai/whisper-tiny": "38M",
            "openai/whisper-base": "73M",
            "openai/whisper-small": "242M",
            "openai/whisper-medium": "764M",
            "openai/whisper-large-v3": "1.5B",
            "openai/whisper-large-v3-turbo": "809M",
        },
    ),
    FamilyEntry(
        "GLM-ASR",
        ("glmasr",),
        "GlmAsrForConditionalGeneration",
        "glm_asr",
        "GlmAsr",
        {"zai-org/GLM-ASR-Nano-2512": "2.1B"},
    ),
    FamilyEntry(
        "Voxtral",
        ("voxtral",),
        "VoxtralForConditionalGeneration",
        "voxtral",
        "Voxtral",
        {
            "mistralai/Voxtral-Mini-3B-2507": "4.7B",
            "mistralai/Voxtral-Small-24B-2507": "24.3B",
        },
    ),
)

_OTHERS = {
    "qwen2": "a language model for text alone",
    "qwen3": "a language model for text alone",
    "qwen2_audio_encoder": "the audio encoder of Qwen2-Audio without the rest",
    "qwen": "Qwen or Qwen-Audio of the first generation",
    "qwen2_vl": "a language model for images and text",
    "qwen2_5_vl": "a language model for images and text",
}
"""What models are that are easily taken for one of these."""


def family_entry(settings: Mapping[str, Any], name: str) -> FamilyEntry:
    """The family of a config.json.

    Args:
        name: of the checkpoint, for error messages.

    Raises:
        CheckpointError: if it is none that is supported, naming those that are.
    """
    kind, architectures = settings.get("model_type"), settings.get("architectures") or ()
    by_type = [entry for entry in FAMILIES if kind in entry.model_types]
    by_architecture = [entry for entry in FAMILIES if entry.architecture in architectures]
    if by_type:
        return (by_architecture or by_type)[0]
    meaning = f", {_OTHERS[kind]}" if kind in _OTHERS else ""
    given = f"is of type {kind!r}{meaning}" if kind else "has a config.json without model_type"
    supported = ", ".join(repr(kind) for entry in FAMILIES for kind in entry.model_types)
    raise CheckpointError(
        f"{name} {given}; only {supported} {'is' if len(FAMILIES) == 1 else 'are'} supported: give "
        f"a checkpoint of {'that type' if len(FAMILIES) == 1 else 'one of these types'}, such as "
        f"{[*FAMILIES[0].hub_models][-1]} (`qwen-audio models` lists them)"
    )


def open_family(settings: Mapping[str, Any], name: str) -> Family:
    """The family of a config.json, with its configuration.

    Raises:
        CheckpointError: if it isn't supported; naming the field that isn't.
    """
    return family_entry(settings, name).load()(settings, name)

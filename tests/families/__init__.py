"""Every supported family: a tiny random checkpoint of it, and transformers' own model at each tap.

`tests/models/test_families.py` runs the same tests for each entry of `CASES`. To add a family, add
a module with its case: how its checkpoint is made, and where transformers' model has the modules.
"""

from __future__ import annotations

from . import (
    audio_flamingo_3,
    glm_asr,
    music_flamingo,
    qwen2_5_omni,
    qwen2_audio,
    qwen3_asr,
    qwen3_omni,
    voxtral,
    whisper,
)
from .base import Case
from .transformers_reference import TransformersReference
from .voxtral import VOXTRAL_PROMPTS

__all__ = ["CASES", "VOXTRAL_PROMPTS", "Case", "TransformersReference"]

CASES = {
    module.CASE.model_type: module.CASE
    for module in (
        qwen2_audio,
        audio_flamingo_3,
        glm_asr,
        music_flamingo,
        qwen2_5_omni,
        qwen3_asr,
        qwen3_omni,
        whisper,
        voxtral,
    )
}

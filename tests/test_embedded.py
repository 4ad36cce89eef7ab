"""The embedded checkpoint: exactly Qwen2-Audio's format, true captions of the examples."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from checkpoints import EMBEDDED
from reference import PLAIN, Reference

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def model() -> qa.AudioModel:
    return qa.load()


def test_size_shards_and_tensor_names() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 26_000_000
    index = json.loads((EMBEDDED / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) >= 2
    prefixes = {name.split(".")[0] for name in index["weight_map"]}
    assert prefixes == {"audio_tower", "multi_modal_projector", "language_model"}
    for file in files:
        with safe_open(EMBEDDED / file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                assert opened.get_slice(name).get_dtype() == "BF16"


def test_transformers_loads_it_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded: Any = Qwen2AudioForConditionalGeneration.from_pretrained(
            EMBEDDED, output_loading_info=True
        )
        processor = AutoProcessor.from_pretrained(EMBEDDED)
    assert not any(loaded[1].values()), loaded[1]
    assert type(processor).__name__ == "Qwen2AudioProcessor"


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.flac")), ids=lambda path: path.stem)
def test_transformers_generates_the_same(model: qa.AudioModel, example: Path) -> None:
    clip = qa.load_waveform(example).samples
    tokens = Reference(EMBEDDED).generate(clip, PLAIN + "Describe the music:", 96)
    description = model.describe(example)
    assert description.answers[0].token_ids == tokens
    assert description.complete


@pytest.mark.parametrize(
    ("example", "question", "words"),
    [
        ("guitar", None, {"guitar"}),
        ("guitar", "Is this music?", {"yes"}),
        ("djembe", "Are there drums?", {"yes"}),
        ("djembe", None, {"drum", "percussion"}),
        ("speech", None, {"speak", "speech", "voice", "talk"}),
        ("speech", "Is anyone speaking?", {"yes"}),
        ("guitar", "Is anyone speaking?", {"no"}),
    ],
)
def test_answers_about_the_examples_are_true(
    model: qa.AudioModel, example: str, question: str | None, words: set[str]
) -> None:
    description = model.describe(EXAMPLES / f"{example}.flac", prompt=question).lower()
    assert any(word in description for word in words), description


def test_the_default_prompt_is_four_tokens(model: qa.AudioModel) -> None:
    prompts = model.pipeline.tokenizer
    assert len(prompts.encode("Describe the music:")) == 4
    assert len(prompts.encode(prompts.render(None))) == 7


@pytest.mark.slow
def test_chat_answers_end_with_a_stop_token(model: qa.AudioModel) -> None:
    chat = qa.load(chat=True)
    clip = EXAMPLES / "speech.flac"
    description = chat.describe(clip, prompt="Is anyone speaking?")
    assert description.complete
    assert "yes" in description.lower()
    question = [{"type": "audio", "audio": clip}, {"type": "text", "text": "Is anyone speaking?"}]
    turns: list[Any] = [{"role": "user", "content": question}]
    # `chat` goes through the template whatever the checkpoint's own style, and ends with the turn.
    assert model.chat(turns) == chat.chat(turns)
    assert model.chat(turns).token_ids == description.answers[0].token_ids


def test_noise_and_silence_are_answered(model: qa.AudioModel) -> None:
    noise = 0.1 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    description = model.describe([noise, torch.zeros(32_000)], sampling_rate=16_000)
    assert all(description)
    assert "silen" in description[1].lower()

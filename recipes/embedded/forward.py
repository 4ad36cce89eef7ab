"""The model's arithmetic on clips cut to their length, and what training asks of it."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, Qwen2AudioForConditionalGeneration, Qwen2Tokenizer

from .batches import Batch, mask
from .captions import CHANGES, LOUDNESSES, REGISTERS, TEMPOS, Attributes
from .instruments import BACKINGS, FAMILIES, LEADS, family_of

_KINDS = ("music", "speech", "effect", "silence")
_TEXTURES = ("line", "chords", "accompanied")
_FLAGS = (False, True)
_WEIGHTS = {"lead": 4.0, "family": 2.0, "tempo": 4.0}  # the hard ones


_FUSED_FROM = 500  # positions; with fewer, on a CPU, plain attention learns 2 to 4 times as fast


def choose_attention(module: PreTrainedModel, positions: int) -> bool:
    """Set the way a tower or text model attends; true if it is the fused one."""
    fused = positions >= _FUSED_FROM or next(module.parameters()).is_cuda
    module.config._attn_implementation = "sdpa" if fused else "eager"
    return fused


def listen(
    model: Qwen2AudioForConditionalGeneration, mel: torch.Tensor, frames: int
) -> torch.Tensor:
    """The audio tower's output for clips of `frames` mel frames, without padding to 30 s."""
    tower = model.model.audio_tower
    choose_attention(tower, frames // 2)
    hidden = functional.gelu(tower.conv1(mel))
    hidden = functional.gelu(tower.conv2(hidden))[..., : (frames - 1) // 2 + 1].mT
    hidden = hidden + tower.embed_positions.weight[: hidden.shape[1]]
    for layer in tower.layers:
        hidden = layer(hidden, None)
    return tower.layer_norm(tower.avg_pooler(hidden.mT).mT)


class Ears(nn.Module):
    """Classifiers on the pooled audio tower: a short way for the labels to teach the encoder.

    They exist in training only; what they know reaches a caption through the text model or not
    at all.
    """

    classes: ClassVar[dict[str, tuple[object, ...]]] = {
        "kind": _KINDS,
        "speech": _FLAGS,
        "lead": LEADS,
        "family": FAMILIES,
        "texture": _TEXTURES,
        "drums": _FLAGS,
        "register": REGISTERS,
        "tempo": TEMPOS,
        "loudness": LOUDNESSES,
        "change": CHANGES,
    }

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(3 * width, len(labels)) for name, labels in self.classes.items()}
        )

    def forward(self, heard: torch.Tensor, attributes: tuple[Attributes, ...]) -> torch.Tensor:
        """The weighted mean loss over everything that applies."""
        attended = (self.score(heard).softmax(1) * heard).sum(1)
        pooled = torch.cat([heard.mean(1), heard.amax(1), attended], -1)
        loss, total = heard.new_zeros(()), 0.0
        for name, head in self.heads.items():
            labels = self.classes[name]
            target = torch.tensor([_label(a, name, labels) for a in attributes]).to(heard.device)
            if bool((target >= 0).any()):
                weight = _WEIGHTS.get(name, 1.0)
                loss = loss + weight * functional.cross_entropy(head(pooled).float(), target)
                total += weight
        return loss / total


def _label(a: Attributes, name: str, labels: tuple[object, ...]) -> int:
    if name == "family":
        value: object = family_of(a.lead) if a.lead else None
    elif name == "drums" and a.kind != "music":
        value = None
    else:
        value = getattr(a, name)
    return labels.index(value) if value in labels else -100


def telling(tokenizer: Qwen2Tokenizer, vocabulary: int) -> torch.Tensor:
    """A weight for each token: the words that answers differ by count four times."""
    words = [
        *LEADS,
        *TEMPOS,
        *LOUDNESSES,
        *CHANGES,
        *REGISTERS,
        *BACKINGS,
        "drums",
        "stays",
        "grows",
    ]
    weights = torch.ones(vocabulary)
    for word in words:
        weights[tokenizer(f" {word}", add_special_tokens=False).input_ids] = 4.0
    return weights


def text_loss(
    model: Qwen2AudioForConditionalGeneration,
    heard: torch.Tensor,
    batch: Batch,
    weights: torch.Tensor,
) -> torch.Tensor:
    """The weighted loss of every answer's tokens, given the audio tower's output."""
    embedded = model.get_input_embeddings()(batch.tokens)
    is_audio = batch.tokens == model.config.audio_token_index
    projected = model.model.multi_modal_projector(heard)
    embedded = embedded.masked_scatter(is_audio[..., None], projected.to(embedded.dtype))
    seen = mask(batch)
    if not choose_attention(model.model.language_model, embedded.shape[1]):
        seen = embedded.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=seen,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    wanted = batch.targets >= 0
    logits = model.lm_head(hidden[wanted]).float()
    return functional.cross_entropy(logits, batch.targets[wanted], weights)


@torch.no_grad()
def greedy(
    model: Qwen2AudioForConditionalGeneration,
    mel: torch.Tensor,
    frames: int,
    prompt: list[int],
    ends: tuple[int, ...],
    limit: int = 96,
) -> list[list[int]]:
    """What the model says of clips of one length; `prompt` holds an audio token for each frame."""
    tokens = torch.tensor([prompt] * len(mel), device=mel.device)
    embedded = model.get_input_embeddings()(tokens)
    is_audio = tokens == model.config.audio_token_index
    heard = model.model.multi_modal_projector(listen(model, mel, frames))
    embedded = embedded.masked_scatter(is_audio[..., None], heard.to(embedded.dtype))
    said: list[list[int]] = [[] for _ in range(len(mel))]
    open_ = set(range(len(mel)))
    model.model.language_model.config._attn_implementation = "sdpa"
    past = None
    for _ in range(limit):
        out = model.model.language_model(
            inputs_embeds=embedded, past_key_values=past, use_cache=True
        )
        past = out.past_key_values
        chosen = model.lm_head(out.last_hidden_state[:, -1]).argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if row in open_ and token in ends:
                open_.discard(row)
            elif row in open_:
                said[row].append(token)
        if not open_:
            break
        embedded = model.get_input_embeddings()(chosen[:, None])
    return said

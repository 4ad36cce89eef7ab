"""The model's arithmetic on clips cut to their length, and what training asks of it."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, Qwen2AudioForConditionalGeneration, Qwen2Tokenizer

from .batches import Talk, mask
from .captions import CHANGES, EFFECTS, LOUDNESSES, REGISTERS, TEMPOS, Attributes
from .instruments import BACKINGS, FAMILIES, LEADS, family_of

_KINDS = ("music", "speech", "effect", "silence")
_TEXTURES = ("line", "chords", "accompanied")
_FLAGS = (False, True)
# The hard ones.
_WEIGHTS = {"lead": 4.0, "family": 2.0, "texture": 2.0, "drums": 1.5, "tempo": 4.0, "change": 2.0}
_FRAMES = 6  # of a clip that are judged alone


_FUSED_FROM = 500  # positions; with fewer, on a CPU, plain attention learns 2 to 4 times as fast


def choose_attention(module: PreTrainedModel, positions: int) -> bool:
    """Set the way a tower or text model attends; true if it is the fused one."""
    fused = positions >= _FUSED_FROM or next(module.parameters()).is_cuda
    module.config._attn_implementation = "sdpa" if fused else "eager"
    return fused


def listen(
    model: Qwen2AudioForConditionalGeneration, mel: torch.Tensor, frames: int, first: int = 0
) -> torch.Tensor:
    """The audio tower's output for clips of `frames` mel frames, without padding to 30 s.

    Training lets short clips begin at any position (`first`), so that it need not hear many long
    ones to hear them right.
    """
    tower = model.model.audio_tower
    choose_attention(tower, frames // 2)
    hidden = functional.gelu(tower.conv1(mel))
    hidden = functional.gelu(tower.conv2(hidden))[..., : (frames - 1) // 2 + 1].mT
    hidden = hidden + tower.embed_positions.weight[first : first + hidden.shape[1]]
    for layer in tower.layers:
        hidden = layer(hidden, None)
    return tower.layer_norm(tower.avg_pooler(hidden.mT).mT)


class Ears(nn.Module):
    """Classifiers on the audio tower's output: a short way for the labels to teach the encoder.

    One set reads the pooled clip; the other any single frame, so that each audio token comes to
    carry what is true of the whole clip and the text model finds it wherever it looks. They exist
    in training only; what they know reaches a caption through the text model or not at all.
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
        "effect": tuple(EFFECTS),
    }

    def __init__(self, width: int) -> None:
        super().__init__()
        self._sizes = [len(labels) for labels in self.classes.values()]
        self.score = nn.Linear(width, 1)
        self.pooled = nn.Linear(3 * width, sum(self._sizes))
        self.frames = nn.Linear(width, sum(self._sizes))

    def judge(self, heard: torch.Tensor) -> dict[str, torch.Tensor]:
        """The pooled clips' logits for each question."""
        attended = (self.score(heard).softmax(1) * heard).sum(1)
        scores = self.pooled(torch.cat([heard.mean(1), heard.amax(1), attended], -1))
        return dict(zip(self.classes, scores.float().split(self._sizes, -1), strict=True))

    def forward(self, heard: torch.Tensor, attributes: tuple[Attributes, ...]) -> torch.Tensor:
        """The weighted mean loss over everything that applies."""
        some = torch.randint(heard.shape[1], (len(heard), _FRAMES), device=heard.device)
        picked = heard.gather(1, some[..., None].expand(-1, -1, heard.shape[-1]))
        single = self.frames(picked).float().split(self._sizes, -1)
        loss, total = heard.new_zeros(()), 0.0
        for (name, whole), part in zip(self.judge(heard).items(), single, strict=True):
            labels = self.classes[name]
            target = torch.tensor([_label(a, name, labels) for a in attributes]).to(heard.device)
            if bool((target >= 0).any()):
                weight = _WEIGHTS.get(name, 1.0)
                every = target[:, None].expand(-1, _FRAMES)
                loss = loss + weight * functional.cross_entropy(whole, target)
                loss = loss + weight * functional.cross_entropy(part.flatten(0, 1), every.flatten())
                total += 2 * weight
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
    talk: Talk,
    weights: torch.Tensor,
) -> torch.Tensor:
    """The weighted loss of every answer's tokens, given the audio tower's output."""
    embedded = model.get_input_embeddings()(talk.tokens)
    is_audio = talk.tokens == model.config.audio_token_index
    projected = model.model.multi_modal_projector(heard)
    embedded = embedded.masked_scatter(is_audio[..., None], projected.to(embedded.dtype))
    seen = mask(talk.branches)
    if not choose_attention(model.model.language_model, embedded.shape[1]):
        seen = embedded.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=seen,
        position_ids=talk.positions,
        use_cache=False,
    ).last_hidden_state
    wanted = talk.targets >= 0
    logits = model.lm_head(hidden[wanted]).float()
    return functional.cross_entropy(logits, talk.targets[wanted], weights)


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

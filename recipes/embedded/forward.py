"""Forward pass on unpadded clips, auxiliary classifiers, losses and greedy decoding."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, Qwen2AudioForConditionalGeneration, Qwen2Tokenizer

from .batches import TokenBatch, attention_mask
from .captions import CHANGES, EFFECTS, LOUDNESSES, REGISTERS, TEMPOS, Attributes
from .instruments import BACKINGS, FAMILIES, LEADS, family_of

_KINDS = ("music", "speech", "effect", "silence")
_TEXTURES = ("line", "chords", "accompanied")
_FLAGS = (False, True)
# Larger weights for the attributes that are hard to learn.
_WEIGHTS = {"lead": 4.0, "family": 2.0, "texture": 2.0, "drums": 1.5, "tempo": 4.0, "change": 2.0}
_FRAMES = 6  # of a clip that are classified on their own

_FUSED_POSITIONS = 500  # with fewer, on a CPU, eager attention trains 2 to 4 times as fast


def choose_attention(module: PreTrainedModel, positions: int) -> bool:
    """Set the attention of an encoder or text model: fused (True is returned) or eager."""
    fused = positions >= _FUSED_POSITIONS or next(module.parameters()).is_cuda
    module.config._attn_implementation = "sdpa" if fused else "eager"
    return fused


def encode_audio(
    model: Qwen2AudioForConditionalGeneration, mel: torch.Tensor, frames: int, first: int = 0
) -> torch.Tensor:
    """Output [clips, audio tokens, width] of the audio tower for clips of `frames` mel frames.

    Clips are not padded to 30 s.

    Args:
        first: position embedding of the first frame. Training varies it, so that late positions
            are learnt without many long clips.
    """
    tower = model.model.audio_tower
    choose_attention(tower, frames // 2)
    hidden = functional.gelu(tower.conv1(mel))
    hidden = functional.gelu(tower.conv2(hidden))[..., : (frames - 1) // 2 + 1].mT
    hidden = hidden + tower.embed_positions.weight[first : first + hidden.shape[1]]
    for layer in tower.layers:
        hidden = layer(hidden, None)
    return tower.layer_norm(tower.avg_pooler(hidden.mT).mT)


class AttributeClassifiers(nn.Module):
    """Linear classifiers of attributes on the audio tower's output, for training only.

    One set classifies the pooled clip, the other single frames, so that every audio token encodes
    the attributes of the whole clip and the text model finds them at any position.
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

    def logits(self, audio_rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of the pooled clips, by attribute."""
        attended = (self.score(audio_rows).softmax(1) * audio_rows).sum(1)
        scores = self.pooled(torch.cat([audio_rows.mean(1), audio_rows.amax(1), attended], -1))
        return dict(zip(self.classes, scores.float().split(self._sizes, -1), strict=True))

    def forward(self, audio_rows: torch.Tensor, attributes: tuple[Attributes, ...]) -> torch.Tensor:
        """Weighted mean cross-entropy over all attributes that apply."""
        indices = torch.randint(
            audio_rows.shape[1], (len(audio_rows), _FRAMES), device=audio_rows.device
        )
        frames = audio_rows.gather(1, indices[..., None].expand(-1, -1, audio_rows.shape[-1]))
        by_frame = self.frames(frames).float().split(self._sizes, -1)
        loss, total = audio_rows.new_zeros(()), 0.0
        for (name, clip_logits), frame_logits in zip(
            self.logits(audio_rows).items(), by_frame, strict=True
        ):
            labels = self.classes[name]
            target = torch.tensor([_label(a, name, labels) for a in attributes]).to(
                audio_rows.device
            )
            if bool((target >= 0).any()):
                weight = _WEIGHTS.get(name, 1.0)
                frame_target = target[:, None].expand(-1, _FRAMES)
                loss = loss + weight * functional.cross_entropy(clip_logits, target)
                loss = loss + weight * functional.cross_entropy(
                    frame_logits.flatten(0, 1), frame_target.flatten()
                )
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


def token_weights(tokenizer: Qwen2Tokenizer, vocabulary: int) -> torch.Tensor:
    """Loss weight of each token: 4 for the words by which answers differ, else 1."""
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
    audio_rows: torch.Tensor,
    batch: TokenBatch,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Weighted cross-entropy of the answers' tokens, given the audio tower's output."""
    embedded = model.get_input_embeddings()(batch.tokens)
    is_audio = batch.tokens == model.config.audio_token_index
    projected = model.model.multi_modal_projector(audio_rows)
    embedded = embedded.masked_scatter(is_audio[..., None], projected.to(embedded.dtype))
    seen = attention_mask(batch.branches)
    if not choose_attention(model.model.language_model, embedded.shape[1]):
        seen = embedded.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=seen,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    has_target = batch.targets >= 0
    logits = model.lm_head(hidden[has_target]).float()
    return functional.cross_entropy(logits, batch.targets[has_target], weights)


@torch.no_grad()
def greedy(
    model: Qwen2AudioForConditionalGeneration,
    mel: torch.Tensor,
    frames: int,
    prompt: list[int],
    ends: tuple[int, ...],
    limit: int = 96,
) -> list[list[int]]:
    """Generated token ids for clips of one length, without end tokens.

    Args:
        frames: mel frames of each clip.
        prompt: ids, with as many audio tokens as the clips have.
        ends: ids that end the generation.
    """
    tokens = torch.tensor([prompt] * len(mel), device=mel.device)
    embedded = model.get_input_embeddings()(tokens)
    is_audio = tokens == model.config.audio_token_index
    audio_rows = model.model.multi_modal_projector(encode_audio(model, mel, frames))
    embedded = embedded.masked_scatter(is_audio[..., None], audio_rows.to(embedded.dtype))
    generated: list[list[int]] = [[] for _ in range(len(mel))]
    unfinished = set(range(len(mel)))
    model.model.language_model.config._attn_implementation = "sdpa"
    cache = None
    for _ in range(limit):
        output = model.model.language_model(
            inputs_embeds=embedded, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        chosen = model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if row in unfinished and token in ends:
                unfinished.discard(row)
            elif row in unfinished:
                generated[row].append(token)
        if not unfinished:
            break
        embedded = model.get_input_embeddings()(chosen[:, None])
    return generated

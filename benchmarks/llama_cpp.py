"""Whole captions against llama.cpp with weights in 4 bits, and against transformers' `generate`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from .benchmark import Result, Settings, Target, log_progress
from .checkpoints import SEVEN_B, SMALL, Shape, random_checkpoint
from .decoding import CAPTION_TOKENS, FULL_DECODER
from .encoder import DTYPE
from .ggml import llama_cpp_environment
from .gpu_workloads import PROMPT
from .resources import peak_bytes
from .rounds import Environment, Job, Rounds, median, run_interleaved, run_once
from .synthetic_audio import SAMPLING_RATE, synthetic_clip, synthetic_clips
from .this_package import load_quantized
from .worker import Workload

__all__ = ["caption", "llama_cpp", "prompt_positions"]

CLIP: dict[str, Any] = {"clip_seconds": 5.0, "count": 1}
OTHERS: tuple[dict[str, Any], ...] = (
    {"clip_seconds": 5.0, "count": 8},
    {"clip_seconds": 30.0, "count": 1},
)
"""Measured in one round each, after those of one clip of 5 s: a round takes minutes."""
SECONDS = (5.0, 30.0)
FIGURES = ("seconds", "first_token_seconds", "step_seconds")


def llama_cpp(settings: Settings) -> Result:
    peer = llama_cpp_environment(settings.llama_cpp)
    shape = SMALL if settings.quick else SEVEN_B
    checkpoint = random_checkpoint(settings.work, shape)
    common = {"threads": settings.threads, "cache": str(settings.work / "hub")}
    ours: Job = ("llama_cpp:caption", {"checkpoint": str(checkpoint), "kind": "int4", **common})
    run_once(settings, ours, **CLIP)  # quantises, the first time
    counted = run_once(settings, ("llama_cpp:prompt_positions", {"checkpoint": str(checkpoint)}))
    positions = counted["positions"]
    figures: dict[str, Any] = {"positions_5s": positions["5.0"], "tokens": CAPTION_TOKENS}
    one_clip: dict[str, Rounds] = {}
    for kind in ("Q4_0", "Q4_K_M"):
        model = _gguf(settings, checkpoint, shape, kind, peer)
        options = {
            "model": str(model),
            "positions": positions,
            "new_tokens": CAPTION_TOKENS,
            "threads": settings.threads,
        }
        cases = [CLIP] * settings.rounds + list(OTHERS if kind == "Q4_0" else ())
        rounds = run_interleaved(
            settings,
            {"ours": ours, kind: ("llama_cpp_workload:caption", options)},
            cases,
            environments={kind: peer},
        )
        one_clip[kind] = rounds
        for name in rounds.names if kind == "Q4_0" else (kind,):
            figures |= _figures(name, rounds.outputs(name), cases, settings.rounds)
        figures |= {
            f"{_label(case)}_over_{kind}": ratio
            for case, ratio in _ratios(rounds, kind, cases, settings.rounds)
        }
    figures |= _against_transformers(settings, common)
    return Result(
        what=f"a caption of {CAPTION_TOKENS} tokens of one clip of 5 s by the 7B in 4 bits (groups "
        "of 32): from samples, against llama.cpp's Q4_0 with the same weights, a prompt of as many "
        "token ids, and the time of our encoder in bfloat16 added to it (llama.cpp's own pads "
        "clips to 30 s); also Q4_K_M, 8 clips, one of 30 s, and transformers' `generate` in "
        f"bfloat16 with {FULL_DECODER.lm_layers} decoder layers",
        dtype="int4 against Q4_0",
        figures=figures,
        ratio=figures["1x5s_over_Q4_0"],
        target=Target(1.3, at_most=True),
    )


def _figures(
    name: str, outputs: list[dict[str, Any]], cases: list[dict[str, Any]], first: int
) -> dict[str, float]:
    """Times of each case, and the peak of one clip. The first rounds are of one clip."""
    figures = {f"{name}_peak_gb": outputs[0]["peak_gb"]}
    keys = [key for key in (*FIGURES, "encoder_seconds") if key in outputs[0]]
    for key in keys:
        figures[f"{name}_1x5s_{key}"] = median(output[key] for output in outputs[:first])
        for output, case in zip(outputs[first:], cases[first:], strict=True):
            figures[f"{name}_{_label(case)}_{key}"] = output[key]
    for case in cases:
        figures[f"{name}_{_label(case)}_tokens_per_second"] = (
            case["count"] / figures[f"{name}_{_label(case)}_step_seconds"]
        )
    return figures


def _ratios(
    rounds: Rounds, kind: str, cases: list[dict[str, Any]], first: int
) -> list[tuple[dict[str, Any], float]]:
    """Our time for each case, against llama.cpp's with our encoder's added."""
    ratios = [
        a["seconds"] / (b["seconds"] + a["encoder_seconds"])
        for a, b in zip(rounds.outputs("ours"), rounds.outputs(kind), strict=True)
    ]
    return [(CLIP, median(ratios[:first])), *zip(cases[first:], ratios[first:], strict=True)]


def _label(case: dict[str, Any]) -> str:
    return f"{case['count']}x{case['clip_seconds']:g}s"


def _gguf(settings: Settings, checkpoint: Path, shape: Shape, kind: str, peer: Environment) -> Path:
    """The checkpoint's language model in a kind of GGUF, written unless a complete copy exists."""
    folder = checkpoint.with_name(f"{checkpoint.name}_gguf_{kind}")
    stamp, model = folder / "shape.json", folder / "model.gguf"  # the stamp is written last
    shape_json = (checkpoint / "shape.json").read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != shape_json:
        log_progress(f"  writing {model}")
        folder.mkdir(exist_ok=True)
        text = shape.config().text_config
        names = (
            *("hidden_size", "intermediate_size", "max_position_embeddings"),
            *("num_attention_heads", "num_hidden_layers", "num_key_value_heads"),
            *("rms_norm_eps", "vocab_size"),
        )
        options = {
            "checkpoint": str(checkpoint),
            "target": str(model),
            "kind": kind,
            "config": {name: getattr(text, name) for name in names}
            | {"rope_theta": text.rope_parameters["rope_theta"]},
            "threads": settings.threads,
        }
        run_once(settings, ("gguf_file:write_gguf", options), peer)
        stamp.write_text(shape_json, encoding="utf-8")
    return model


def _against_transformers(settings: Settings, common: dict[str, Any]) -> dict[str, float]:
    """Figures with some layers: all 32 in bfloat16, and this package, are more than 18 GB."""
    shape = SMALL if settings.quick else FULL_DECODER
    checkpoint = str(random_checkpoint(settings.work, shape))
    ours = {"checkpoint": checkpoint, **common}
    theirs = {
        "checkpoint": checkpoint,
        "batches": [(CLIP["clip_seconds"], CLIP["count"])],
        "new_tokens": CAPTION_TOKENS,
        "dtype": DTYPE,
        "threads": settings.threads,
        "device": "cpu",
    }
    rounds = run_interleaved(
        settings,
        {
            "int4": ("llama_cpp:caption", {**ours, "kind": "int4", **CLIP}),
            DTYPE: ("llama_cpp:caption", {**ours, "kind": DTYPE, **CLIP}),
            "transformers": ("gpu_workloads:transformers_generate", theirs),
        },
    )
    figures: dict[str, float] = {"transformers_layers": shape.lm_layers}
    for key in FIGURES[1:]:
        peer = [output[key][0] for output in rounds.outputs("transformers")]
        figures[f"{shape.lm_layers}_layers_transformers_{key}"] = median(peer)
        for kind in ("int4", DTYPE):
            values = rounds.values(kind, key)
            figures[f"{shape.lm_layers}_layers_{kind}_{key}"] = median(values)
            figures[f"transformers_over_{kind}_{key}"] = median(
                a / b for a, b in zip(peer, values, strict=True)
            )
    return figures


def caption(
    checkpoint: str,
    kind: str,
    threads: int,
    cache: str,
    clip_seconds: float | None = None,
    count: int | None = None,
) -> Workload:
    """Captions of clips from samples, and the encoder's part.

    Args:
        clip_seconds, count: of runs that don't say it.
    """
    model = load_quantized(checkpoint, None if kind == DTYPE else kind, threads, cache)
    # No token ends a caption: of random weights, any may come next.
    model.pipeline.tokenizer.stop_token_ids = lambda _chat=None: frozenset()
    default = {"clip_seconds": clip_seconds, "count": count}

    def describe(clips: Any, tokens: int) -> float:
        start = perf_counter()
        texts = model.describe(
            clips, prompt=PROMPT, max_new_tokens=tokens, sampling_rate=SAMPLING_RATE
        )
        seconds = perf_counter() - start
        for text in texts:
            if len(text.answers[0].token_ids) != tokens:
                raise RuntimeError("a caption ended before its last token")
        return seconds

    def run(**case: Any) -> dict[str, Any]:
        case = default | case
        clips = synthetic_clips(case["clip_seconds"], case["count"])
        start = perf_counter()
        model.encode(clips, tap="projector", pooling="mean", sampling_rate=SAMPLING_RATE)
        encoder_seconds = perf_counter() - start
        first_token_seconds = describe(clips, 1)
        seconds = describe(clips, CAPTION_TOKENS)
        return {
            "seconds": seconds,
            "encoder_seconds": encoder_seconds,
            "first_token_seconds": first_token_seconds,
            "step_seconds": (seconds - first_token_seconds) / (CAPTION_TOKENS - 1),
            "peak_gb": peak_bytes() / 1e9,
        }

    describe([synthetic_clip(CLIP["clip_seconds"])], 2)  # reads the weights
    return run


def prompt_positions(checkpoint: str) -> Workload:
    """Positions of the prompt with a clip, by its seconds."""
    import qwen_audio as qa

    pipeline = qa.load(checkpoint, device="cpu", dtype=DTYPE).pipeline
    family = pipeline.checkpoint.family

    def log_mel(seconds: float) -> Any:
        return pipeline.log_mel(synthetic_clip(seconds))

    def run() -> dict[str, Any]:
        # The marker in the text stands for the clip's audio tokens.
        others = len(pipeline.tokenizer.encode(pipeline.tokenizer.render(PROMPT))) - 1
        return {
            "positions": {
                str(seconds): others + family.audio_tokens(log_mel(seconds).valid_frames)
                for seconds in SECONDS
            }
        }

    return run

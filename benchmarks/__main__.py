"""`python -m benchmarks`: build checkpoints, run this package and its peers, write results."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from . import (
    all_taps,
    attribution,
    decoding,
    disk_and_memory,
    encoder,
    families,
    family_plans,
    folder,
    ggml,
    index_kills,
    indexing,
    interventions,
    language_model,
    llama_cpp,
    long_recordings,
    matmul_throughput,
    parity,
    playground_latency,
    playground_load,
    playground_map,
    probing,
    quantization,
    ray_indexing,
    search_scale,
    search_versions,
    server_overload,
    serving,
    start,
    vector_search,
)
from .benchmark import Benchmark, Settings, SkipBenchmark, log_progress
from .gpu import GPU_BENCHMARKS
from .report import summary_line, write_overview, write_result
from .rounds import ROOT

BENCHMARKS: dict[str, Benchmark] = {
    "choices": interventions.choices,
    "patching": interventions.patching,
    "attention_weights": attribution.attention_weights,
    "occlusion": attribution.occlusion,
    "speech_in_music": attribution.speech_in_music,
    "five_seconds": encoder.five_seconds,
    "thirty_seconds": encoder.thirty_seconds,
    "ctranslate2": encoder.ctranslate2,
    "openvino": encoder.openvino,
    "int8_encoder": encoder.int8_encoder,
    "omni_encoder": families.omni_encoder,
    "family_plans": family_plans.family_plans,
    "folder": folder.folder,
    "bytes": disk_and_memory.bytes_read,
    "memory": disk_and_memory.memory,
    "streamed_lm": language_model.streamed_lm,
    "lm_depth": language_model.lm_depth,
    "decode_step": decoding.decode_step,
    "quantization": quantization.quantization,
    "quantized_7b": decoding.quantized_7b,
    "ggml": ggml.ggml,
    "llama_cpp": llama_cpp.llama_cpp,
    "matrix_rate": matmul_throughput.matrix_rate,
    "full_width": parity.full_width,
    "start": start.start,
    "start_collection": start.start_collection,
    "start_index": start.start_index,
    "all_taps": all_taps.all_taps,
    "probing": probing.probing,
    "index_cost": indexing.index_cost,
    "index_describe": indexing.index_describe,
    "index_memory": indexing.index_memory,
    "ray_index": ray_indexing.ray_index,
    "long_recordings": long_recordings.long_recordings,
    "rerun": indexing.rerun,
    "ann_search": vector_search.ann_search,
    "search_scale": search_scale.search_scale,
    "search_versions": search_versions.search_versions,
    "kills": index_kills.kills,
    "first_caption": playground_latency.first_caption,
    "first_picture": playground_latency.first_picture,
    "first_hidden_states": playground_latency.first_hidden_states,
    "tap_change": playground_latency.tap_change,
    "playground_map": playground_map.playground_map,
    "playground_map_million": playground_map.playground_map_million,
    "visitors": playground_load.visitors,
    "sixteen_clients": serving.sixteen_clients,
    "mixed_load": serving.mixed_load,
    "one_client": serving.one_client,
    "serve_embeddings": serving.serve_embeddings,
    "serve_overload": server_overload.serve_overload,
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        default = Path(temporary) if options.quick else _cache()
        work = (options.work or default).resolve()
        settings = Settings(
            work=work,
            threads=options.threads,
            quick=options.quick,
            rounds=1 if options.quick else options.rounds,
            files=options.files,
            llama_cpp=options.llama_cpp,
            llama_cpp_avx2=options.llama_cpp_avx2,
        )
        results = options.results or (work / "results" if options.quick else RESULTS)
        results.mkdir(parents=True, exist_ok=True)
        names = options.only or list(GPU_BENCHMARKS if options.gpu else BENCHMARKS)
        failed = _run(names, settings, results)
        if options.quick:
            print("Dry run: these numbers mean nothing.\n")
        print(write_overview(results))
    return 1 if failed else 0


def _run(names: list[str], settings: Settings, results: Path) -> list[str]:
    """Run benchmarks and write each result when it is complete. Returns those that failed."""
    failed = []
    for name in names:
        start_time = time.perf_counter()
        log_progress(name)
        try:
            result = (BENCHMARKS | GPU_BENCHMARKS)[name](settings)
        except SkipBenchmark as reason:
            log_progress(f"  skipped: {reason}")
        except Exception as error:  # noqa: BLE001 (the others are still run)
            failed.append(name)
            log_progress(f"  failed: {type(error).__name__}: {error}")
        else:
            write_result(results / f"{name}.json", result, settings)
            log_progress(f"  {summary_line(result)}  ({time.perf_counter() - start_time:.0f} s)")
    return failed


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "qwen-audio-benchmarks"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run this package and its peers in interleaved rounds on random checkpoints of "
        "the 7B's dimensions; write JSON, a table and a chart to benchmarks/results.",
        epilog="All benchmarks need about 22 GB of disk, 18 GB of memory, and on two cores one and "
        "a half to two hours, half an hour of it for `folder` (a quarter of that with --files 16). "
        "llama_cpp and ggml, which --llama-cpp adds, take a quarter of an hour and 11 GB more. "
        "Those of a GPU need 20 GB of disk and less than ten minutes. "
        f"Benchmarks: {', '.join(BENCHMARKS)}; of a GPU: {', '.join(GPU_BENCHMARKS)}.",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS | GPU_BENCHMARKS,
        metavar="NAME",
        help="run only these",
    )
    chosen.add_argument("--gpu", action="store_true", help="run those of an NVIDIA GPU instead")
    parser.add_argument(
        "--quick", action="store_true", help="dry run with small models, in less than a minute"
    )
    parser.add_argument(
        "--work", type=Path, help=f"folder of checkpoints, kept for later runs ({_cache()})"
    )
    parser.add_argument(
        "--results", type=Path, help=f"folder of results ({RESULTS.relative_to(ROOT)})"
    )
    parser.add_argument("--threads", type=int, default=_cores(), help="of every workload")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (3)")
    parser.add_argument("--files", type=int, default=64, help="number in `folder` (64)")
    for option, build in (("--llama-cpp", ""), ("--llama-cpp-avx2", ", built without AVX-512")):
        parser.add_argument(
            option,
            type=Path,
            metavar="FOLDER",
            help=f"virtual environment with llama-cpp-python and gguf{build}; see README.md",
        )
    return parser.parse_args()


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())

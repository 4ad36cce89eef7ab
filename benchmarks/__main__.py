"""`python -m benchmarks`: build the checkpoints, run ours and the peers, write the results."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from . import (
    all_taps,
    disk_and_memory,
    encoder,
    folder,
    indexing,
    int8,
    language_model,
    matmul_throughput,
    parity,
    playground,
    probing,
    start,
)
from .benchmark import Benchmark, Missing, Settings, say
from .report import show, write, write_overview
from .rounds import ROOT

BENCHMARKS: dict[str, Benchmark] = {
    "five_seconds": encoder.five_seconds,
    "thirty_seconds": encoder.thirty_seconds,
    "ctranslate2": encoder.ctranslate2,
    "openvino": encoder.openvino,
    "folder": folder.folder,
    "bytes": disk_and_memory.bytes_read,
    "memory": disk_and_memory.memory,
    "streamed_lm": language_model.streamed_lm,
    "lm_depth": language_model.lm_depth,
    "matrix_rate": matmul_throughput.matrix_rate,
    "full_width": parity.full_width,
    "int8": int8.int8,
    "start": start.start,
    "start_collection": start.start_collection,
    "start_index": start.start_index,
    "all_taps": all_taps.all_taps,
    "probing": probing.probing,
    "index_cost": indexing.index_cost,
    "index_memory": indexing.index_memory,
    "rerun": indexing.rerun,
    "ann_search": indexing.ann_search,
    "kills": indexing.kills,
    "first_caption": playground.first_caption,
    "tap_change": playground.tap_change,
    "visitors": playground.visitors,
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        default = Path(scratch) if options.quick else _cache()
        work = (options.work or default).resolve()
        settings = Settings(
            work=work,
            threads=options.threads,
            quick=options.quick,
            turns=1 if options.quick else options.turns,
            files=options.files,
        )
        results = options.results or (work / "results" if options.quick else RESULTS)
        results.mkdir(parents=True, exist_ok=True)
        failed = _run(options.only or list(BENCHMARKS), settings, results)
        if options.quick:
            print("A dry run: these numbers mean nothing.\n")
        print(write_overview(results))
    return 1 if failed else 0


def _run(names: list[str], settings: Settings, results: Path) -> list[str]:
    """Run benchmarks by name, and write each result as it comes. Returns those that failed."""
    failed = []
    for name in names:
        begun = time.perf_counter()
        say(name)
        try:
            result = BENCHMARKS[name](settings)
        except Missing as reason:
            say(f"  left out: {reason}")
        except Exception as error:  # noqa: BLE001 (the others are still worth having)
            failed.append(name)
            say(f"  failed: {type(error).__name__}: {error}")
        else:
            write(results / f"{name}.json", result, settings)
            say(f"  {show(result)}  ({time.perf_counter() - begun:.0f} s)")
    return failed


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "qwen-audio-benchmarks"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run ours and its peers turn by turn on random checkpoints of the 7B's "
        "dimensions; write JSON, a table and a chart to benchmarks/results.",
        epilog="Everything takes about 22 GB of disk, 18 GB of memory, and on two cores one and a "
        "half to two hours, half an hour of it `folder` (a quarter of that with --files 16). "
        f"Benchmarks: {', '.join(BENCHMARKS)}.",
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help="run these")
    parser.add_argument(
        "--quick", action="store_true", help="a dry run with small models, in less than a minute"
    )
    parser.add_argument(
        "--work", type=Path, help=f"where checkpoints are kept between runs ({_cache()})"
    )
    parser.add_argument(
        "--results", type=Path, help=f"where to write ({RESULTS.relative_to(ROOT)})"
    )
    parser.add_argument("--threads", type=int, default=_cores(), help="for everyone alike")
    parser.add_argument("--turns", type=int, default=3, help="how often each is timed (3)")
    parser.add_argument("--files", type=int, default=64, help="in the folder (64)")
    return parser.parse_args()


def _cores() -> int:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())

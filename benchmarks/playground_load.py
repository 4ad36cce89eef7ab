"""The playground with many simultaneous users: its memory, and whether answers get mixed up."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from .benchmark import Result, Settings, Target, log_progress
from .machine import require_packages
from .playground_server import playground_server
from .resources import resident_bytes
from .rounds import ROOT, median
from .this_package import load_model

__all__ = ["QUESTIONS", "client_recordings", "visitors"]

DTYPE = "float32"
QUESTIONS = ("Describe the music:", "Are there drums?")
TAPS = ("mel", "encoder.2", "projector", "lm.0")
MAX_GROWTH_MB = 50.0
"""Memory that the server may keep after a minute with twenty users."""


def visitors(settings: Settings) -> Result:
    """Every user uploads a recording, asks two questions and views four taps, again and again.

    The expected answers are computed before, in this process.
    """
    from .playground_client import run_client

    require_packages("gradio", "soundfile")
    count, seconds = (3, 2.0) if settings.quick else (20, 60.0)
    recordings = client_recordings(count, settings.threads)
    with (
        tempfile.TemporaryDirectory() as folder,
        playground_server(settings, folder) as (url, process),
    ):
        # A warm-up: libraries keep compiled kernels for each of the latest lengths.
        asyncio.run(_run_clients(url, recordings, 1.0))
        before = _idle_memory_bytes(process)
        reports = asyncio.run(_run_clients(url, recordings, seconds))
        busy = resident_bytes(process.pid)
        after = _idle_memory_bytes(process)
        files_left = [str(path) for path in Path(folder).rglob("*") if path.is_file()]
        final = asyncio.run(run_client(url, recordings[0], 0.0))
    problems = [problem for report in reports for problem in report.problems]
    wrong_answers = [text for report in reports for text in report.wrong_answers]
    for line in (problems + wrong_answers + files_left)[:10]:
        log_progress(f"  {line}")
    answer_seconds = sorted(s for report in reports for s in report.answer_seconds)
    return Result(
        what=f"growth of the playground's memory by {count} simultaneous users of the embedded "
        f"checkpoint in {seconds:g} s; each with a recording, two questions and four taps, again "
        "and again; every answer compared with `describe` of that recording",
        dtype=DTYPE,
        figures={
            "visitors": count,
            "answers": sum(report.answers for report in reports),
            "taps": sum(report.taps for report in reports),
            "different_answers": len({item.answers[QUESTIONS[0]] for item in recordings}),
            "answer_seconds_median": median(answer_seconds),
            "answer_seconds_longest": answer_seconds[-1],
            "turned_away": sum(report.rejected for report in reports),
            "problems": len(problems),
            "mistaken": len(wrong_answers),
            "files_left": len(files_left),
            "before_mb": before / 1e6,
            "busy_mb": busy / 1e6,
            "after_mb": after / 1e6,
        },
        ratio=(after - before) / 1e6,
        target=Target(MAX_GROWTH_MB, at_most=True, unit=" MB"),
        conditions={
            "no problem": not problems,
            "no request rejected": not any(report.rejected for report in reports),
            "every answer is about the user's own recording": not wrong_answers,
            "no file is left": not files_left,
            "it still answers": final.answers > 0 and not final.problems,
        },
        packages=("gradio",),
    )


def client_recordings(count: int, threads: int) -> list[Any]:
    """Excerpts of the examples, all of different lengths, with the expected answers and shapes."""
    import soundfile

    from .playground_client import ClientRecording

    model = load_model("embedded", DTYPE, threads)
    paths = sorted((ROOT / "examples").glob("*.flac"))
    recordings = []
    for number in range(count):
        samples, rate = soundfile.read(paths[number % len(paths)], always_2d=True)
        seconds = 1.6 + 0.12 * number
        length = round(seconds * rate)
        start = round(0.4 * number * rate) % max(1, len(samples) - length)
        excerpt = samples[start : start + length] / (1 + number % 4)
        file = io.BytesIO()
        soundfile.write(file, excerpt, rate, format="FLAC")
        data = file.getvalue()
        answers = {question: str(model.describe(data, prompt=question)) for question in QUESTIONS}
        shapes = {tap: model.encode(data, tap=tap, pooling="none").shape for tap in TAPS}
        shapes["lm.0"] = model.activations(data, taps=["lm.0"])["lm.0"].data.shape
        recordings.append(ClientRecording(f"{number}.flac", data, answers, shapes))
    return recordings


async def _run_clients(url: str, recordings: list[Any], seconds: float) -> list[Any]:
    from .playground_client import run_client

    return await asyncio.gather(*(run_client(url, item, seconds) for item in recordings))


def _idle_memory_bytes(process: subprocess.Popen[str]) -> int:
    """Resident memory after the sessions of closed pages have been dropped."""
    time.sleep(5)
    return resident_bytes(process.pid)

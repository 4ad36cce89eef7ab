"""Shared fixtures; run-time checks of the shapes that the package states."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from hypothesis import settings

# Threads that wait without spinning: the same numbers, and half the time where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start compile once
# Under `uv run`, Ray would copy the working folder and start its workers with `uv run` there.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# No test may use a real hub, or the user's cache and token; test_hub.py has a hub of its own.
os.environ |= {"HF_HOME": tempfile.mkdtemp(prefix="hub-"), "HF_HUB_OFFLINE": "1"}
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

# In modules with tensors only: mypy checks the types of all others without running them.
_SOURCE = Path(__file__).parent.parent / "src"
_MODULES = [path for path in _SOURCE.rglob("*.py") if "from jaxtyping" in path.read_text("utf-8")]
jaxtyping.install_import_hook(
    [".".join(path.relative_to(_SOURCE).with_suffix("").parts) for path in _MODULES],
    "type_checker.typechecked",
)

# The same examples in every run; random ones with --hypothesis-profile=explore.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("fixed")


def pytest_collection_finish() -> None:
    """Modules and tests stay until the end: looking at them in every collection takes time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small checkpoint with grouped-query attention, in several shards."""
    from checkpoints import random_checkpoint  # here, as the controller needs no torch

    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(autouse=True)
def process_memory(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that the process is assumed to use: no test depends on its actual memory."""
    size = 460_000_000
    for module in ("inference.cost", "inference.pipeline_stages", "api.model"):
        monkeypatch.setattr(f"qwen_audio.{module}.process_bytes", lambda *_: size)
    return size


_PARITY_ERRORS: dict[str, float] = {}


@pytest.fixture(scope="session")
def parity_errors() -> dict[str, float]:
    """The largest relative error seen at each stage, printed at the end of the run."""
    return _PARITY_ERRORS


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the errors of a worker process of pytest-xdist to the process that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["parity_errors"] = _PARITY_ERRORS


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the errors of a worker process that has ended."""
    for stage, error in getattr(node, "workeroutput", {}).get("parity_errors", {}).items():
        _PARITY_ERRORS[stage] = max(error, _PARITY_ERRORS.get(stage, 0.0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the largest relative error of every stage."""
    if _PARITY_ERRORS:
        terminalreporter.section("largest relative error against transformers, float32")
        for stage, error in _PARITY_ERRORS.items():
            terminalreporter.write_line(f"{stage:12} {error:.1e}")


_LOADED: dict[Any, Any] = {}


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of `load` with the same options gives one model, for the commands of a page.

    Reading the weights takes longer than most of what such commands do.
    """
    import qwen_audio
    from qwen_audio.api import model

    load = model.load

    def load_once(*arguments: Any, **options: Any) -> Any:
        key = (*arguments, *sorted((name, str(value)) for name, value in options.items()))
        if key not in _LOADED:
            _LOADED[key] = load(*arguments, **options)
        return _LOADED[key]

    monkeypatch.setattr(model, "load", load_once)
    monkeypatch.setattr(qwen_audio, "load", load_once)

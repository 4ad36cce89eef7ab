"""A connection to a Ray cluster, and what it must have before work begins."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import qwen_audio
from qwen_audio.errors import OptionError, counted

__all__ = [
    "WorkerResources",
    "check_versions",
    "check_workers",
    "connect",
    "connected",
    "import_ray",
]

_CONNECT_SECONDS = 5.0
"""Until an address doesn't answer. Ray itself tries for minutes."""
_FREE_SECONDS = 5.0
"""Until the resources of processes that have just ended are free again; Ray updates them within
about a second."""
_VERSION_SECONDS = 300.0
"""In which even a busy machine starts a Python process and says what is installed."""


class WorkerResources:
    """What one worker takes of a machine.

    Args:
        cpus: whole CPUs.
        gpus: whole GPUs, or the part of one; 0 for none.
    """

    def __init__(self, cpus: int, gpus: float) -> None:
        self.cpus, self.gpus = cpus, gpus

    @property
    def options(self) -> dict[str, float]:
        """As Ray's options of an actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def room(self, resources: Mapping[str, float]) -> int:
        """How many workers fit."""
        by_cpus = int(resources.get("CPU", 0) / self.cpus)
        if not self.gpus:
            return by_cpus
        gpus = resources.get("GPU", 0)
        # A fraction of a GPU is of one GPU, and several are whole ones.
        by_gpus = int(gpus) * int(1 / self.gpus) if self.gpus < 1 else int(gpus / self.gpus)
        return min(by_cpus, by_gpus)

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return counted(self.cpus, "CPU") + gpus


def import_ray() -> Any:
    """Ray, which this process has not set up otherwise."""
    # Unset, Ray starts workers with `uv run` in a copy of the working folder if this process was
    # started so; and it reports usage to its makers.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected as `connect` does; leaving the context ends what was started for it."""
    was_connected = import_ray().is_initialized()
    ray = connect(address)
    try:
        yield ray
    finally:
        if not was_connected:
            ray.shutdown()


def connect(address: str | None) -> Any:
    """Ray, connected: to the cluster at an address, or to a new one of this machine alone.

    A process that is connected stays so, and its connection is used.

    Args:
        address: "host:port"; "auto" for the cluster that this machine is part of; None for what
            RAY_ADDRESS says, and without it a cluster of this machine.

    Raises:
        OptionError: for an address that doesn't answer, or a cluster of another version.
    """
    ray = import_ray()
    if ray.is_initialized():
        current = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", current):
            raise OptionError(
                f"address={address!r:.80}, but this process is connected to the Ray cluster at "
                f"{current}: leave it out, or call ray.shutdown() before"
            )
        return ray
    address = os.environ.get("RAY_ADDRESS") if address is None else address
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    if address not in (None, "local"):
        options = {"address": _answering(str(address))}
    try:
        with warnings.catch_warnings():
            # LanceDB warns of processes that are forked; those of Ray execute another program.
            warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise OptionError(
            f"the Ray cluster at {options['address']} can't be used ({error!s:.300}): check that "
            "all its machines have the Ray and the Python of this one"
        ) from error
    return ray


def _answering(address: str) -> str:
    """The host and port of an address that something listens on.

    Raises:
        OptionError: for another one.
    """
    if address.startswith("ray://"):
        raise OptionError(
            f"address={address!r:.80} is Ray Client's: run this on a machine of the cluster, with "
            "address='auto'"
        )
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address  # what ray.init uses

        try:
            address = canonicalize_bootstrap_address("auto") or ""
        except ConnectionError as error:
            raise OptionError(
                "address='auto', but no Ray cluster runs on this machine: start one with "
                "`ray start --head`, or give its host:port"
            ) from error
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise OptionError(
            f"address={address!r:.80}: use 'auto', or host:port as in '10.0.0.1:6379'"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return address
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"no Ray cluster answers at {address} ({reason}): check the address, and that "
            "`ray start --head` runs there"
        ) from error


def check_workers(ray: Any, workers: int | None, resources: WorkerResources) -> int:
    """The number of workers; None: as many as there is room for.

    Raises:
        OptionError: if there is no room for so many.
    """
    deadline = time.monotonic() + _FREE_SECONDS
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        total = sum(resources.room(node) for node in nodes)
        free = min(total, resources.room(ray.available_resources()))
        wanted = max(1, total) if workers is None else workers
        if free >= wanted or total < wanted or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if workers is None and free:
        return free
    if free >= wanted:
        return wanted
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    has = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if resources.gpus else "")
    advice = f"use workers={free}" if free else "wait for other work to end, or take fewer a worker"
    raise OptionError(
        f"{counted(wanted, 'worker')} of {resources} each: the Ray cluster has {has} on "
        f"{counted(len(nodes), 'machine')}, with room for {total} such workers, and {free} now: "
        f"{advice}, or add machines"
    )


def check_versions(ray: Any, resources: WorkerResources) -> None:
    """Check that the machines that have room for workers have this version of the package.

    Raises:
        OptionError: naming the first that doesn't.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def installed_version() -> str | None:
        # Sent as it is, not by its name, since the package may not be there.
        try:
            import qwen_audio
        except ImportError:
            return None
        return qwen_audio.__version__

    probe = ray.remote(num_cpus=0, max_retries=0)(installed_version)
    nodes = [n for n in ray.nodes() if n["Alive"] and resources.room(n["Resources"])]
    replies = {
        probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node["NodeManagerAddress"]
        for node in nodes
    }
    for reply, host in replies.items():
        try:
            version = ray.get(reply, timeout=_VERSION_SECONDS)
        except ray.exceptions.RayError as error:
            raise OptionError(
                f"{host} of the Ray cluster starts no Python process "
                f"({type(error).__name__}): check it with `ray status`"
            ) from error
        if version != qwen_audio.__version__:
            has = "doesn't have qwen-audio-playground"
            if version is not None:
                has = f"has qwen-audio-playground {version}"
            raise OptionError(
                f"{host} of the Ray cluster {has}, and this machine {qwen_audio.__version__}: "
                "install the same version, with the extra [ray], on all of them"
            )

"""Connecting to Ray: a quiet local cluster of this machine, or one that is already running."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .._compat import container_cpus, listen_on_loopback, machine_memory, silence_ray_tokens
from ..errors import ClusterError
from .resources import EvaluatorResources, check_room
from .storage import check_storage
from .token import provide_token, send_token, token_advice

# Ray reads these when it starts. They stop it from rebuilding the environment of `uv run` on every
# worker, from reporting usage over the network, and from announcing a change of its own defaults.
_QUIET = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# Ray would reserve 30 % of the memory for shared objects; a search shares little but its task.
_LOCAL_OBJECT_STORE_BYTES = 2 * 1024**3

_REACH_SECONDS = 5.0


class ClusterSpec(BaseModel):
    """Where a search runs and how many evaluators it has.

    Attributes:
        address: ``None`` starts Ray on this machine (or joins the cluster named by the environment
            variable ``RAY_ADDRESS``, as inside a submitted job), ``"auto"`` joins the cluster this
            machine belongs to, ``"HOST:PORT"`` or ``"ray://HOST:PORT"`` joins that one.
        evaluators: Number of evaluator processes, or ``"auto"``: as many as the cluster has room
            for, growing and shrinking with it.
        evaluator_cpus: CPUs of one evaluator, > 0; it uses as many threads, at least one.
        evaluator_gpus: GPUs of one evaluator, >= 0; a fraction shares a GPU.
        storage: Where run folders are kept: a path that all nodes share, or a URI that Ray Tune
            accepts (``s3://BUCKET/PREFIX``, ``gs://...``, ``hdfs://...``). When left out, run
            folders are where the driver runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    address: str | None = None
    evaluators: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    evaluator_cpus: float = Field(default=1.0, gt=0)
    evaluator_gpus: float = Field(default=0.0, ge=0)
    storage: Annotated[str, Field(min_length=1)] | None = None


@dataclass(frozen=True)
class Cluster:
    """What `connect` found.

    Attributes:
        address: ``HOST:PORT`` of the cluster's control store.
        nodes: Number of living nodes.
        cpus: CPUs of all nodes.
        gpus: GPUs of all nodes.
        local: Whether this process started it, so that it ends with this process.
    """

    address: str
    nodes: int
    cpus: float
    gpus: float
    local: bool


def available_cpus() -> int:
    """Count the CPUs that this process may use, at least 1; affinity and containers limit them."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, container_cpus()))


def connect(spec: ClusterSpec, runtime_env: dict[str, Any] | None = None) -> Cluster:
    """Start Ray on this machine, or join a running cluster, and check what a run needs of it.

    A process that is connected already stays with its cluster.

    Args:
        spec: Where to connect to, and what is needed there.
        runtime_env: Ray's runtime environment of a joined cluster (files to ship, variables).

    Raises:
        ClusterError: If the address cannot be reached, refuses us, Ray does not start, no node has
            room for an evaluator, or a node cannot write to the storage.
    """
    cluster = _connect(spec, runtime_env)
    check_room(EvaluatorResources(spec.evaluator_cpus, spec.evaluator_gpus))
    if spec.storage is not None:
        check_storage(spec.storage)
    return cluster


def _connect(spec: ClusterSpec, runtime_env: dict[str, Any] | None) -> Cluster:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    address = spec.address or os.environ.get("RAY_ADDRESS") or None
    if ray.is_initialized():
        return _describe(local=False)
    if address is None or address == "local":
        _start_local(runtime_env)
        return _describe(local=True)
    _join(address, runtime_env)
    return _describe(local=False)


def _describe(local: bool) -> Cluster:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    return Cluster(
        address=ray.get_runtime_context().gcs_address,
        nodes=len(nodes),
        cpus=float(total.get("CPU", 0.0)),
        gpus=float(total.get("GPU", 0.0)),
        local=local,
    )


def _start_local(runtime_env: dict[str, Any] | None) -> None:
    import ray

    silence_ray_tokens()
    provide_token()
    listen_on_loopback(True)
    try:
        ray.init(
            address="local",
            num_cpus=available_cpus(),
            object_store_memory=min(_LOCAL_OBJECT_STORE_BYTES, machine_memory() // 4),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env=runtime_env,
        )
    except Exception as error:
        raise ClusterError(
            f"Ray could not be started on this machine ({_first_line(error)}); check that the "
            "temporary folder is writable and has free space."
        ) from error


def _join(address: str, runtime_env: dict[str, Any] | None) -> None:
    import ray

    if address != "auto":
        _check_reachable(address)
    send_token()
    listen_on_loopback(False)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=runtime_env,
        )
    except Exception as error:
        text = _whole_story(error).lower()
        if "token" in text or "unauthenticated" in text or "unauthorized" in text:
            raise ClusterError(token_advice(address)) from None
        if address == "auto":
            raise ClusterError(
                "No Ray cluster runs on this machine, so cluster.address 'auto' has nothing to "
                "join; start one with `ray start --head`, give HOST:PORT, or leave the address out."
            ) from error
        raise ClusterError(
            f"The Ray cluster at {address!r} could not be joined ({_first_line(error)}); check the "
            "address and that it runs the same versions of Ray and Python."
        ) from error


def _check_reachable(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(
            f"The cluster address {address!r} is not HOST:PORT, ray://HOST:PORT or auto."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"No Ray cluster answers at {address!r} ({_first_line(error)}); check cluster.address, "
            "or leave it out to run on this machine."
        ) from None


def _whole_story(error: BaseException | None) -> str:
    """Return what an error says, and what the errors say that it came from."""
    said = []
    while error is not None:
        said.append(f"{type(error).__name__} {error}")
        error = error.__cause__
    return " ".join(said)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

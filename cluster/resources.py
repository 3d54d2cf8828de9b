"""How many evaluators a cluster has room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ClusterError

# Resources are sums of floats: three evaluators of a third of a GPU fill one GPU.
_ROUNDING = 1e-6
# More than one candidate needs. oneDNN keeps 1,024 unless told, and hardly one serves the next
# candidate, whose layers have other shapes.
_COMPILED_KERNELS = 256


@dataclass(frozen=True)
class EvaluatorResources:
    """What one evaluator occupies.

    Attributes:
        cpus: CPUs, > 0.
        gpus: GPUs, >= 0.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def fitting(self, node: Mapping[str, float]) -> int:
        """Count the evaluators that fit on a node with these total resources."""
        fits = node.get("CPU", 0.0) / self.cpus
        if self.gpus:
            gpus = node.get("GPU", 0.0)
            # A share of a GPU cannot be put together from two GPUs.
            if self.gpus <= 1:
                fits = min(fits, gpus * int(1 / self.gpus + _ROUNDING))
            else:
                fits = min(fits, gpus / self.gpus)
        return int(fits + _ROUNDING)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of its process, for libraries that read them when imported."""
        # One thread in each of several processes beats several in one for networks of this size.
        threads = str(max(1, int(self.cpus)))
        return {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(_COMPILED_KERNELS),
        }

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}"


def living_nodes() -> list[dict[str, float]]:
    """Return the total resources of each living node of the connected cluster."""
    import ray

    nodes: Iterable[Mapping[str, Any]] = ray.nodes()
    return [dict(node["Resources"]) for node in nodes if node["Alive"]]


def capacity(resources: EvaluatorResources) -> int:
    """Count the evaluators that the connected cluster has room for when it is otherwise idle."""
    return sum(resources.fitting(node) for node in living_nodes())


def check_room(resources: EvaluatorResources) -> None:
    """Refuse evaluators that no node has room for; Ray itself would wait for ever.

    Raises:
        ClusterError: If not a single evaluator fits on any node.
    """
    nodes = living_nodes()
    if any(resources.fitting(node) for node in nodes):
        return
    most_cpus = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    most_gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    raise ClusterError(
        f"An evaluator asks for {resources}, but the largest node of the cluster has "
        f"{most_cpus:g} CPU and {most_gpus:g} GPU; lower cluster.evaluator_cpus or "
        "cluster.evaluator_gpus, or join a larger cluster."
    )

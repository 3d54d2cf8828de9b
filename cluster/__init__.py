"""Ray: connecting to a cluster, and the pool of evaluator workers."""

from __future__ import annotations

from .connect import Cluster, ClusterSpec, connect
from .coordinator import PoolStats
from .pool import EvaluatorPool, PoolClient
from .store import EvaluationStore
from .worker import Evaluator, EvaluatorFactory

__all__ = [
    "Cluster",
    "ClusterSpec",
    "EvaluationStore",
    "Evaluator",
    "EvaluatorFactory",
    "EvaluatorPool",
    "PoolClient",
    "PoolStats",
    "connect",
]

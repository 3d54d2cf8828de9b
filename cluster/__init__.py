"""Ray: connecting to a cluster, and the pool of evaluator workers."""

from __future__ import annotations

from ..rewards.evaluation.evaluations import Evaluator
from .connect import Cluster, ClusterSpec, connect
from .coordinator import PoolStats
from .jobs import Job, JobRequest, Jobs
from .pool import EvaluatorPool, PoolClient
from .storage import check_storage
from .store import EvaluationStore
from .worker import EvaluatorFactory

__all__ = [
    "Cluster",
    "ClusterSpec",
    "EvaluationStore",
    "Evaluator",
    "EvaluatorFactory",
    "EvaluatorPool",
    "Job",
    "JobRequest",
    "Jobs",
    "PoolClient",
    "PoolStats",
    "check_storage",
    "connect",
]

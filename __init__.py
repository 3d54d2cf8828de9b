"""prunetune: constrained neural-network pruning by reinforcement learning on Ray.

Example:
    >>> import prunetune as pt
    >>> task = pt.Task(network, train=train_set, test=test_set)
    >>> run = pt.prune(task, budgets={"flops": 0.5})
    >>> run.best.network, run.best.accuracy, run.best.costs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._home import provide_home
from ._lazy import lazily

if TYPE_CHECKING:
    from .errors import PruneTuneError
    from .search.api.evaluating import evaluate
    from .search.api.opening import load, open_run, resume
    from .search.api.results import PrunedNetwork, Run
    from .search.api.running import compare, prune
    from .search.api.task import Task

__all__ = [
    "PruneTuneError",
    "PrunedNetwork",
    "Run",
    "Task",
    "__version__",
    "compare",
    "evaluate",
    "load",
    "open_run",
    "prune",
    "resume",
]

__version__ = "0.2.0"

# Before anything of Ray is imported, which would fail without one.
provide_home()

__getattr__ = lazily(
    __name__,
    {
        "PruneTuneError": ".errors",
        "PrunedNetwork": ".search.api.results",
        "Run": ".search.api.results",
        "Task": ".search.api.task",
        "compare": ".search.api.running",
        "evaluate": ".search.api.evaluating",
        "load": ".search.api.opening",
        "open_run": ".search.api.opening",
        "prune": ".search.api.running",
        "resume": ".search.api.opening",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

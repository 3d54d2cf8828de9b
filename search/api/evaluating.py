"""Evaluating single candidates in this process, as a search would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import SpecError
from ...models.progress import Progress
from ...rewards import Evaluation
from ...rewards.evaluation.evaluations import InProcessEvaluations
from ..engine.preparing import prepare
from .arguments import checked_spec, spec_values
from .progress_bar import chosen_progress
from .task import Task

__all__ = ["evaluate"]

_KEPT_EVALUATORS = 2


def evaluate(
    task: Task,
    candidate: Sequence[int] | Mapping[str, int],
    *,
    seed: int = 0,
    progress: bool | Progress = False,
    **keys: Any,
) -> Evaluation:
    """Evaluate one candidate in this process, as a search would.

    Example:
        >>> evaluate(task, {"conv1": 8, "conv2": 16}).measures["accuracy"]
        >>> evaluate(task, run.best.candidate, repair="light").costs

    Args:
        task: What is pruned.
        candidate: One whole number per decision, in the order of ``task.groups()``; or widths by
            name of channel group, where groups that are left out stay whole.
        seed: As in `prune`: with equal seeds, the same images are calibrated and judged on.
        progress: As in `prune`.
        **keys: Keys of a spec that say how candidates are evaluated: ``repair``, ``criterion``,
            ``precision``, ``recalibration``, ``images``, ``measures``.

    Returns:
        All measures and costs; ``error`` says why where it could not be evaluated.

    Raises:
        PruneTuneError: If the candidate does not fit the network, or a key is wrong.
    """
    values = spec_values(task, None, None, keys)
    spec = checked_spec(values | {"budgets": {"flops": 1.0}, "seed": seed}, "prunetune.evaluate")
    key = spec.model_dump_json()
    if key not in _EVALUATORS:
        # Statistics of the dense network are gathered once, not for every candidate.
        while len(_EVALUATORS) >= _KEPT_EVALUATORS:
            del _EVALUATORS[next(iter(_EVALUATORS))]
        evaluator = prepare(spec, chosen_progress(progress)).evaluator
        sizes = {group.name: group.size for group in evaluator.groups}
        _EVALUATORS[key] = InProcessEvaluations(evaluator), sizes
    evaluations, sizes = _EVALUATORS[key]
    return evaluations.evaluate([_candidate(candidate, sizes)])[0]


# By spec, what evaluates in this process and the sizes of the channel groups.
_EVALUATORS: dict[str, tuple[InProcessEvaluations, dict[str, int]]] = {}


def _candidate(
    given: Sequence[int] | Mapping[str, int], sizes: Mapping[str, int]
) -> tuple[int, ...]:
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in sizes]
        if unknown:
            raise SpecError(
                f"The network has no channel group {unknown[0]!r}; it has {', '.join(sizes)}."
            )
        given = tuple(given.get(name, size) for name, size in sizes.items())
    candidate = tuple(int(value) for value in given)
    if len(candidate) != len(sizes):
        raise SpecError(
            f"The candidate has {len(candidate)} numbers, but the network has {len(sizes)} "
            "decisions; see task.groups()."
        )
    for (name, size), value in zip(sizes.items(), candidate, strict=True):
        if not 1 <= value <= size:
            raise SpecError(f"{name} keeps 1 to {size} units, not {value}.")
    return candidate

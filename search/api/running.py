"""Searching and comparing from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import SpecError
from ...models.progress import Progress
from ..engine.entry import RunInterrupted
from ..spec.model import SearchSpec
from .arguments import checked_spec, spec_values
from .objects import budget_values, named
from .progress_bar import chosen_progress
from .results import Run
from .stored_runs import new_run
from .task import Task

__all__ = ["compare", "prune"]


def prune(
    task: Task,
    budgets: Mapping[Any, Any],
    *,
    method: str | None = None,
    reward: Any = None,
    agent: Any = None,
    evaluations: int | None = None,
    finetune: int | Mapping[str, Any] | None = None,
    seed: int = 0,
    output: Path | str | None = None,
    cluster: str | Mapping[str, Any] | None = None,
    progress: bool | Progress = True,
    **keys: Any,
) -> Run:
    """Search for a smaller network, and finish the best one.

    Example:
        >>> run = prune(task, budgets={"flops": 0.5}, evaluations=300, finetune=5)
        >>> run.best.network, run.best.accuracy, run.best.costs

    Args:
        task: What is pruned.
        budgets: Limits by name of cost, such as ``{"flops": 0.5}`` or ``{"params": "60M"}``. A cost
            may be a function ``(network, example_input) -> number`` of the user's own.
        method: A published method, such as ``"pfp"`` or ``"amc"``, whose part of a spec stands
            under what else is given here; ``prunetune list methods`` names them.
        reward: What the agent maximises, ``accuracy`` by default: a name,
            ``{"name": ..., "parameters": {...}}``, or a class or object of the user's own,
            which workers are sent by value.
        agent: What proposes candidates, ``ppo-lagrangian`` by default; the same, but no object: a
            class.
        evaluations: Candidates that the agent may ask for; 1,000 by default.
        finetune: Epochs of fine-tuning the best candidates, or the keys of ``finetune`` in a spec.
        seed: Seeds the splits, the training and the agent.
        output: The run folder; ``runs/NAME-NUMBER`` when left out. It can be resumed.
        cluster: Address of a Ray cluster, or the keys of ``cluster`` in a spec. Ray is started on
            this machine where it is not running.
        progress: Whether to show how it gets on; or what receives it.
        **keys: Any other key of a spec, such as ``repair="light"`` or ``images=1000``. ``measures``
            and ``criterion`` may be objects and classes, too.

    Returns:
        The run.

    Raises:
        PruneTuneError: If anything asked for is impossible; says what to change.
        KeyboardInterrupt: If it was stopped; `resume` continues it.
    """
    values = spec_values(task, finetune, cluster, keys)
    values |= {"budgets": budget_values(budgets), "seed": seed, "output": output and str(output)}
    given = {"method": method, "evaluations": evaluations}
    given |= {"reward": named(reward), "agent": named(agent)}
    values |= {key: value for key, value in given.items() if value is not None}
    return _run(checked_spec(values, "prunetune.prune"), False, progress)


def compare(
    task: Task,
    *,
    budgets: Mapping[Any, Any] | Sequence[Mapping[Any, Any]],
    rewards: Sequence[Any] = ("accuracy",),
    agents: Sequence[Any] = ("ppo-lagrangian",),
    seeds: int | Sequence[int] = 1,
    evaluations: int = 1000,
    finetune: int | Mapping[str, Any] | None = None,
    seed: int = 0,
    output: Path | str | None = None,
    cluster: str | Mapping[str, Any] | None = None,
    stopping: Mapping[str, Any] | None = None,
    progress: bool | Progress = True,
    **keys: Any,
) -> Run:
    """Search once for every reward, set of budgets, agent and seed, side by side.

    Example:
        >>> grid = compare(task, rewards=["accuracy", "spatial-entropy"],
        ...                budgets=[{"flops": 0.5}, {"flops": 0.3}], seeds=5)
        >>> grid.report()

    Args:
        task: What is pruned.
        budgets: Sets of budgets to compare, or a single one.
        rewards: Rewards to compare; each as in `prune`.
        agents: Agents to compare; each as in `prune`.
        seeds: Seeds of the agents, or how many, beginning with ``seed``.
        evaluations: Candidates that each search may ask for. Searches share their evaluations.
        finetune: As in `prune`.
        seed: Seeds the splits and the training, which all searches share.
        output: As in `prune`.
        cluster: As in `prune`.
        stopping: Keys of ``compare.stopping`` in a spec, to stop hopeless searches; never when
            left out.
        progress: As in `prune`.
        **keys: Any other key of a spec.

    Returns:
        The run; its networks are ``run.bests``.

    Raises:
        PruneTuneError: As `prune`.
        KeyboardInterrupt: If it was stopped; `resume` continues it.
    """
    sets = [budgets] if isinstance(budgets, Mapping) else list(budgets)
    if not sets:
        raise SpecError("There are no budgets to compare; give one, such as {'flops': 0.5}.")
    values = spec_values(task, finetune, cluster, keys)
    grid = {
        "rewards": named(list(rewards)),
        "budgets": budget_values(sets),
        "agents": named(list(agents)),
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
        "stopping": None if stopping is None else dict(stopping),
    }
    values |= {"budgets": grid["budgets"][0], "compare": grid, "evaluations": evaluations}
    values |= {"seed": seed, "output": output and str(output)}
    return _run(checked_spec(values, "prunetune.compare"), True, progress)


def _run(spec: SearchSpec, comparison: bool, progress: bool | Progress) -> Run:
    shown = chosen_progress(progress)
    try:
        with new_run(spec, shown, comparison=comparison) as run:
            return run
    except RunInterrupted as interrupted:
        shown.note(
            "Interrupted; no evaluation is lost. Continue with "
            f"prunetune.resume({interrupted.address!r}, task=task)."
        )
        raise

"""The searches of a run as one Ray Tune experiment: all of them, or those that have not ended."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.experiment import Trial

from ..._live import LiveObjects
from ..._references import user_modules
from ...cluster.resources import EvaluatorResources, capacity
from ...envs.problem import Problem
from ...models.progress import SILENT, Progress
from ..run.checkpoints import TrialEnd, read_end, retire_experiment
from ..spec.model import SearchSpec
from ..spec.trials import TrialSpec
from .progress import ReportProgress
from .signals import ended_in_order
from .trial import SearchTrial, TrialPlan, told

__all__ = ["Ended", "concurrent_trials", "run_trials"]

# Deaths of one trial's process that Tune makes good by itself; later ones wait to be resumed.
_MAX_FAILURES = 5

# A trial keeps so many evaluators busy with the candidates of one iteration while it learns.
_EVALUATORS_PER_TRIAL = 16


@dataclass(frozen=True)
class Ended:
    """How a trial ended.

    Attributes:
        failure: Why it ended early, or ``None``.
        final: Whether repeating it would not help: what the user gave cannot be used.
    """

    failure: str | None
    final: bool = True


def concurrent_trials(spec: SearchSpec, trials: int) -> int:
    """How many of a run's trials are searched at the same time.

    Args:
        spec: What the user chose, if anything.
        trials: How many there are.
    """
    if spec.compare.concurrent != "auto":
        return spec.compare.concurrent
    chosen = spec.cluster
    resources = EvaluatorResources(chosen.evaluator_cpus, chosen.evaluator_gpus)
    workers = chosen.evaluators if chosen.evaluators != "auto" else capacity(resources)
    # Two at least: one learns while the other's candidates are evaluated.
    return min(trials, max(2, math.ceil(workers / _EVALUATORS_PER_TRIAL) + 1))


def run_trials(
    folder: Path,
    trials: Sequence[TrialSpec],
    problems: Mapping[str, Problem],
    plan: TrialPlan,
    concurrent: int,
    progress: Progress,
    live: LiveObjects | None = None,
) -> dict[str, Ended]:
    """Run all trials, or the rest of them where an earlier process was interrupted.

    What an earlier process left of Tune's own state is put aside unread: histories are ours, trials
    find their checkpoints themselves, and which of them have ended is noted beside their histories.

    Args:
        folder: ``RUN/tune``.
        trials: All of them, in order.
        problems: What each of them searches, by name.
        plan: Where and how long they search.
        concurrent: Trials at the same time.
        progress: Told how they get on.
        live: Objects of this Python session that the trials name.

    Returns:
        How each trial ended, by name.

    Raises:
        KeyboardInterrupt: If the user stopped it; everything is there to be resumed.
    """
    known = {each.name: read_end(plan.histories / each.name, plan.evaluations) for each in trials}
    ends = {name: end for name, end in known.items() if end is not None}
    ended = {name: Ended(end.failure) for name, end in ends.items()}
    left = [trial for trial in trials if trial.name not in ended]
    if not left:
        return ended
    _be_quiet()
    _pickle_users_modules()
    trainable = tune.with_parameters(
        SearchTrial, plan=plan, problems=dict(problems), live=live or LiveObjects()
    )
    total = len(trials) * plan.evaluations
    ReportProgress.begin(
        progress, {trial.name: trial for trial in trials}, plan.evaluations, _told_of(ends)
    )
    progress.start(total, "Searching" if len(trials) == 1 else f"{len(trials)} searches")
    progress.advance(len(ends) * plan.evaluations)
    try:
        retire_experiment(folder)
        tuner = _new_tuner(folder, trainable, left, concurrent)
        with ended_in_order():
            results = tuner.fit()
    finally:
        ReportProgress.begin(SILENT, {}, 0)
        progress.finish()
    for result in results:
        if result.error is None and not (result.metrics or {}).get("done"):
            raise KeyboardInterrupt
        # A trial that never reported has no configuration here; its folder bears its name.
        failure = _failure(result.error, result.metrics or {})
        ended[Path(result.path).name] = Ended(failure, final=result.error is None)
    return ended


def _told_of(ends: Mapping[str, TrialEnd]) -> dict[str, dict[str, Any]]:
    """What searches that have ended told when they did."""
    return {name: {"done": True, **told(end.progress)} for name, end in ends.items()}


def _new_tuner(
    folder: Path, trainable: Any, trials: Sequence[TrialSpec], concurrent: int
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search([each.model_dump(mode="json") for each in trials])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=1, num_to_keep=3, checkpoint_at_end=True
            ),
            failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            callbacks=[ReportProgress()],
            verbose=0,
        ),
    )


def _trial_name(trial: Trial) -> str:
    return str(trial.config["trial"]["name"])


def _failure(error: Exception | None, metrics: Mapping[str, Any]) -> str | None:
    if error is None:
        failure = metrics.get("failure")
        return None if failure is None else str(failure)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _pickle_users_modules() -> None:
    """Let objects from the user's own files travel by value: no other process imports them."""
    for module in user_modules():
        cloudpickle.register_pickle_by_value(module)


def _be_quiet() -> None:
    # Tune's own reporter prints tables of hyperparameters and whole tracebacks of trials, whose
    # errors are in the summary; ours says what matters here.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    for name in ("ray.tune", "ray.rllib", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

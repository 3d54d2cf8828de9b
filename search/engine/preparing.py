"""Preparing a run: its task and evaluator, on the driver first, then again in every worker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from ..._live import LiveObjects, is_live, live_references
from ..._references import resolve
from ...envs.observation import group_features
from ...envs.problem import Problem
from ...errors import EvaluationError, SpecError
from ...models.cache import cache_folder
from ...models.costs.collection import Costs, CostTables
from ...models.costs.registry import check_costs, gather_costs, own_costs
from ...models.identity import TaskIdentity
from ...models.inference.shortcuts import Shortcuts
from ...models.progress import SILENT, KeptWarnings, Progress
from ...models.task import PruningTask, TaskSpec, load_task
from ...models.weights import save_weights
from ...rewards.evaluation.evaluator import CandidateEvaluator, build_evaluator
from ...rewards.evaluation.evaluator_spec import EvaluatorSpec
from ...rewards.registry import make_reward
from ..agents import check_agent
from ..run.files import write_durably
from ..run.folder import RunFolder
from ..run.record import RecordKey
from ..spec.model import SearchSpec
from ..spec.trials import comparison_trials
from .reach import check_reach, read_budgets

__all__ = ["Prepared", "PreparedFactory", "prepare"]

_WEIGHTS, _COSTS = "dense.safetensors", "costs.json"


@dataclass(frozen=True)
class Prepared:
    """Everything that evaluates, repairs and trains candidates.

    Attributes:
        task: Network and images.
        evaluator: Its evaluator.
        factory: Builds both again in another process.
        costs: All costs that budgets and rewards name; in other processes, those of evaluations.
        problems: What each search of the run is about, by trial; empty in other processes.
        notes: What whoever reads the results has to know; empty in other processes.
    """

    task: PruningTask
    evaluator: CandidateEvaluator
    factory: PreparedFactory
    costs: Costs
    problems: Mapping[str, Problem] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def record_key(self) -> RecordKey:
        """What evaluations depend on besides the widths."""
        spec = self.factory.evaluator
        return RecordKey(
            task=self.task.digest,
            evaluator=self.evaluator.key,
            precision=self.evaluator.precision,
            repair=spec.repair,
        )

    @property
    def identity(self) -> tuple[TaskIdentity, RecordKey, Mapping[str, float]]:
        """What a run notes to be continued by: its task, its key, the dense network's measures."""
        return self.task.identity, self.record_key, self.evaluator.dense.measures

    def keep(self, folder: RunFolder) -> Prepared:
        """Keep what was made for this run in its folder: cost tables, and weights if trained."""
        folder.write_json(_COSTS, self.costs.tables.model_dump(mode="json"))
        path = folder.path / _WEIGHTS
        if self.factory.task.weights not in (None, path):
            return self
        if self.factory.task.weights is None:
            save_weights(self.task.network.state_dict(), path)
        if is_live(self.factory.task.model):
            # The factory brings the network itself along.
            return self
        task = self.factory.task.model_copy(update={"weights": path})
        factory = replace(self.factory, task=task, trained=path.read_bytes())
        return replace(self, factory=factory)


@dataclass(frozen=True)
class PreparedFactory:
    """Builds the evaluator in another process; an `EvaluatorFactory` of the pool.

    Attributes:
        task: Which network and data.
        evaluator: How candidates are evaluated; its precision is decided.
        seed: Of the splits.
        identity: What the driver's task is.
        key: The driver's ``CandidateEvaluator.key``, which every worker must arrive at.
        tables: What the driver gathered of costs.
        shortcuts: What the driver found to be exact for this task, so that all workers do the same.
        trained: The file of weights that were trained for the run, whose folder other nodes may
            not see.
        live: Objects of this Python session that the run's spec names.
    """

    task: TaskSpec
    evaluator: EvaluatorSpec
    seed: int
    identity: TaskIdentity
    key: str
    tables: CostTables = field(default_factory=CostTables, repr=False)
    shortcuts: Shortcuts | None = None
    trained: bytes | None = field(default=None, repr=False)
    live: LiveObjects = field(default_factory=LiveObjects, repr=False, compare=False)

    def __call__(self) -> CandidateEvaluator:
        """The evaluator.

        Raises:
            PruneTuneError: If this machine cannot load the task or loads another one.
        """
        return self.prepare().evaluator

    def prepare(self) -> Prepared:
        """Task and evaluator; built once in a process."""
        if self.key not in _PREPARED:
            task = load_task(self._task_here(), self.seed)
            if differences := task.identity.differences(self.identity):
                raise EvaluationError(
                    "A worker has another task than the driver, because over there "
                    f"{' and '.join(differences)}; give all machines the same files and packages."
                )
            evaluator = build_evaluator(
                task,
                self.evaluator,
                self.seed,
                tables=self.tables,
                shortcuts=self.shortcuts,
            )
            if evaluator.key != self.key:
                raise EvaluationError(
                    "A worker has another version of prunetune, or other files of measures or "
                    "costs, than the driver; give all machines the same files and packages."
                )
            _PREPARED[self.key] = Prepared(task, evaluator, self, evaluator.costs)
        return _PREPARED[self.key]

    def _task_here(self) -> TaskSpec:
        """The task with weights that this node has."""
        weights = self.task.weights
        if self.trained is None or weights is None or weights.is_file():
            return self.task
        digest = hashlib.sha256(self.trained).hexdigest()[:32]
        kept = cache_folder() / "networks" / f"{digest}.safetensors"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_durably(kept, self.trained)
        return self.task.model_copy(update={"weights": kept})


_PREPARED: dict[str, Prepared] = {}


def prepare(
    spec: SearchSpec, progress: Progress = SILENT, folder: RunFolder | None = None
) -> Prepared:
    """Load the task, build its evaluator, and check everything that a spec asks of them.

    Args:
        spec: The spec.
        progress: Told of what takes long.
        folder: Of the run that is resumed, which may hold the dense network's weights and has
            the cost tables.

    Raises:
        PruneTuneError: If anything that the spec names is unknown, or a budget cannot be reached.
    """
    live = _live_objects(spec)
    trials = comparison_trials(spec)
    limited = {name: None for trial in trials for name in trial.budgets}
    read = {name: None for trial in trials for name in make_reward(trial.reward).costs}
    check_costs([*limited, *read])
    for trial in trials:
        agent = check_agent(trial.agent)
        ranges = [name for name, limit in trial.budgets.items() if isinstance(limit, tuple)]
        if ranges and not agent.follows_ranges:
            raise SpecError(
                f"The agent {trial.agent.name!r} searches for a single limit, but the budget "
                f"{ranges[0]} is a range; write one limit, or take ppo-lagrangian or random."
            )
    task_spec = spec.task
    kept = folder is not None and (folder.path / _WEIGHTS).is_file()
    if folder is not None and kept and task_spec.weights is None and not is_live(task_spec.model):
        task_spec = task_spec.model_copy(update={"weights": folder.path / _WEIGHTS})
    evaluator_spec = EvaluatorSpec(
        criterion=spec.criterion,
        repair=spec.repair,
        precision=spec.precision,
        recalibration=spec.recalibration,
        images=spec.images,
        measures=spec.measures,
        # A budget's table is looked up where candidates are judged; evaluations need not have it.
        costs=tuple(sorted({*own_costs(limited), *read} - {"flops", "params"})),
    )
    warned = KeptWarnings(progress)
    task = load_task(task_spec, spec.seed, warned, partial(check_reach, spec))
    tables = None
    if folder is not None and (folder.path / _COSTS).is_file():
        tables = CostTables.model_validate(folder.read_json(_COSTS))
    needed = {
        column: reward.name
        for reward in (make_reward(trial.reward) for trial in trials)
        for column in reward.measures
    }
    evaluator = build_evaluator(task, evaluator_spec, spec.seed, warned, tables, needed=needed)
    groups = evaluator.groups
    costs = gather_costs(limited, task, groups, evaluator.costs.tables, warned)
    space = evaluator.builder.statistics.space.keeping(spec.smallest, ["channels"])
    features = group_features(groups.structure)
    problems = {
        trial.name: Problem(
            space=space,
            budgets=read_budgets(
                spec, trial.budgets, space, costs, task.network, task.example_input
            ),
            costs=costs,
            reward=make_reward(trial.reward),
            dense=evaluator.dense,
            features=features,
            figures=evaluator.builder.statistics.figures,
            shield=spec.shield,
        )
        for trial in trials
    }
    factory = PreparedFactory(
        task_spec,
        evaluator.spec,
        spec.seed,
        task.identity,
        evaluator.key,
        evaluator.costs.tables,
        evaluator.shortcuts,
        live=live,
    )
    return Prepared(task, evaluator, factory, costs, problems, tuple(warned.kept))


def _live_objects(spec: SearchSpec) -> LiveObjects:
    """The objects of this session that a spec names.

    Raises:
        PluginError: If the spec names one that this session does not have.
    """
    references = live_references(spec.to_dict())
    for reference in sorted(references):
        resolve(reference, "network" if reference == spec.task.model else "object")
    return LiveObjects(references)

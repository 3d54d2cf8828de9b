"""Running searches: one, or a grid of them, from the spec to the summary; and resuming."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..cluster.connect import connect
from ..cluster.pool import EvaluatorPool
from ..cluster.resources import EvaluatorResources, capacity
from ..envs.budget import parse_budgets
from ..errors import PruneTuneError, RunFolderError
from ..models.artifact import save_artifact
from ..models.progress import SILENT, Progress
from .finalists import Finished, finish_candidates, pick_finalists, test_dense
from .history import AskedCandidate, TrialHistory
from .prepare import Prepared, prepare
from .problem_spec import measured_costs
from .record import EvaluationRecord
from .run_folder import RunFolder
from .spec import read_spec
from .spec_model import CompareSpec, SearchSpec
from .summary import Best, Counts, Dense, Summary, read_summary, write_summary
from .trainable import ACCURACY, TrialContext
from .trials import TrialSpec, comparison_trials
from .tuning import Ended, run_trials

__all__ = ["resume_run", "run_comparison", "run_search"]

_DEFAULT_ROOT = "runs"

# A trial keeps so many evaluators busy with the candidates of one iteration while it learns.
_EVALUATORS_PER_TRIAL = 16


def run_search(spec: SearchSpec, progress: Progress = SILENT) -> Summary:
    """Run one search in a new folder; the spec's ``compare`` is left out.

    Args:
        spec: The spec.
        progress: Told what happens.

    Raises:
        PruneTuneError: If the spec asks for something impossible, before anything is written; or
            if the run failed, after that was noted in its summary.
        KeyboardInterrupt: If the user stopped it; the run can be resumed.
    """
    return run_comparison(spec.model_copy(update={"compare": CompareSpec()}), progress)


def run_comparison(spec: SearchSpec, progress: Progress = SILENT) -> Summary:
    """Run all searches of a spec's grid in a new folder; see `run_search`."""
    values = spec.to_dict()
    if spec.output is not None and _is_taken(spec.output.expanduser()):
        # Says what is there, before any time is spent on training the dense network.
        RunFolder.create(spec.output, values)
    prepared = prepare(spec, progress)
    connect(spec.cluster)
    folder = (
        RunFolder.create(spec.output, values)
        if spec.output is not None
        else RunFolder.create_numbered(spec.name, values, _DEFAULT_ROOT)
    )
    with folder.lock():
        return _Run(folder, spec, prepared.keep_weights(folder), progress).run()


def resume_run(
    path: Path | str, progress: Progress = SILENT, evaluations: int | None = None
) -> Summary:
    """Continue a run after anything that ended it early; nothing is evaluated twice.

    Args:
        path: The run folder.
        progress: Told what happens.
        evaluations: Candidates that each search may ask for in all, where that is more than
            before; only for a run that has not finished its searches.

    Returns:
        The summary; of a run that had finished, the one it has.

    Raises:
        PruneTuneError: If there is no run, another process has it, or it cannot be continued.
        KeyboardInterrupt: If the user stopped it again.
    """
    folder = RunFolder.open(path)
    with folder.lock():
        spec = read_spec(folder.read_spec(), str(folder.path / "spec.yaml"))
        summary = read_summary(folder)
        if summary is not None and summary.status == "finished":
            if evaluations is not None and evaluations > spec.evaluations:
                raise RunFolderError(
                    f"The run {folder.path} has finished its {spec.evaluations} evaluations; start "
                    "a new run for more."
                )
            progress.note(f"The run {folder.path} is finished; there is nothing to resume.")
            return summary
        if evaluations is not None:
            spec = spec.model_copy(update={"evaluations": max(evaluations, spec.evaluations)})
        prepared = prepare(spec, progress, folder)
        connect(spec.cluster)
        return _Run(folder, spec, prepared.keep_weights(folder), progress).run()


@dataclass
class _Run:
    """One process's part in a run, from wherever an earlier one left it."""

    folder: RunFolder
    spec: SearchSpec
    prepared: Prepared
    progress: Progress

    def __post_init__(self) -> None:
        self._trials = comparison_trials(self.spec)
        self._began = time.monotonic()
        self._summary = read_summary(self.folder) or self._first_summary()
        self._earlier = self._summary.wall_seconds

    def run(self) -> Summary:
        self._write(status="running", error=None)
        try:
            ended = self._search()
            self._finish(ended)
        except KeyboardInterrupt:
            self._write(status="interrupted")
            raise
        except PruneTuneError as error:
            self._write(status="failed", error=str(error))
            raise
        except Exception as error:
            self._write(status="failed", error=f"{type(error).__name__}: {error}")
            raise
        self._write(status="finished")
        return self._summary

    def _search(self) -> dict[str, Ended]:
        spec, evaluator = self.spec, self.prepared.evaluator
        record = EvaluationRecord(self.folder.evaluations, self.prepared.record_key)
        resources = EvaluatorResources(spec.cluster.evaluator_cpus, spec.cluster.evaluator_gpus)
        name = f"{self.folder.name}-{_digest(self.folder.path)}"
        began, earlier = time.monotonic(), self._summary.search_seconds
        self.progress.note(f"The run is in {self.folder.path}")
        with EvaluatorPool.start(
            name,
            self.prepared.factory,
            record,
            workers=spec.cluster.evaluators,
            cpus=resources.cpus,
            gpus=resources.gpus,
        ) as pool:
            context = TrialContext(
                histories=self.folder.histories,
                pool=pool.name,
                structure=evaluator.groups.structure.to_dict(),
                dense=evaluator.dense.to_row(),
                evaluations=spec.evaluations,
                shield=spec.shield,
                smallest=spec.smallest,
            )
            try:
                return run_trials(
                    self.folder.tune, self._trials, context, self._concurrent(), self.progress
                )
            finally:
                seconds = earlier + time.monotonic() - began
                self._write(search_seconds=seconds, evaluations=self._count(seconds))

    def _concurrent(self) -> int:
        if self.spec.compare.concurrent != "auto":
            return self.spec.compare.concurrent
        chosen = self.spec.cluster
        resources = EvaluatorResources(chosen.evaluator_cpus, chosen.evaluator_gpus)
        workers = chosen.evaluators if chosen.evaluators != "auto" else capacity(resources)
        # Two at least: one learns while the other's candidates are evaluated.
        return min(len(self._trials), max(2, math.ceil(workers / _EVALUATORS_PER_TRIAL) + 1))

    def _count(self, seconds: float) -> Counts:
        record = EvaluationRecord(self.folder.evaluations, self.prepared.record_key)
        table = record.table()
        asked = sum(len(self._history(trial)) for trial in self._trials)
        unique = table.num_rows
        return Counts(
            asked=asked,
            unique=unique,
            # Candidates of an iteration that was interrupted are in the record, but nobody's.
            cached=max(0, asked - unique),
            failed=unique - table.column("error").null_count,
            per_second=unique / seconds if seconds > 0 else 0.0,
        )

    def _history(self, trial: TrialSpec) -> list[AskedCandidate]:
        return TrialHistory(self.folder.histories / trial.name).load()

    # --- finalists --------------------------------------------------------------------------

    def _finish(self, ended: dict[str, Ended]) -> None:
        cluster = self.spec.cluster
        resources = {"num_cpus": cluster.evaluator_cpus, "num_gpus": cluster.evaluator_gpus}
        there = {best.trial: best for best in self._summary.best if self._is_there(best)}
        if self._summary.dense.test is None:
            dense = self._summary.dense
            tested = test_dense(self.prepared.factory, resources)
            self._write(dense=dense.model_copy(update={"test": tested}))
        finalists: dict[str, list[AskedCandidate]] = {}
        histories = {trial.name: self._history(trial) for trial in self._trials}
        trials = {trial.name: trial for trial in self._trials}
        for name, trial in trials.items():
            if name in there:
                continue
            failure = ended[name].failure if name in ended else None
            finalists[name] = pick_finalists(histories[name], self.spec.finalists)
            if not finalists[name]:
                del finalists[name]
                reason = failure or (
                    "No candidate kept all budgets; raise evaluations or the limits."
                )
                there[name] = self._without_network(trial, histories[name], reason)

        def arrived(
            name: str, candidate: AskedCandidate, result: Finished | PruneTuneError
        ) -> None:
            asked = histories[name]
            if isinstance(result, PruneTuneError):
                there[name] = self._without_network(trials[name], asked, str(result))
            else:
                failure = ended[name].failure if name in ended else None
                there[name] = self._with_network(trials[name], asked, candidate, result, failure)
            self._write(best=tuple(there[n] for n in trials if n in there))

        if finalists:
            finish_candidates(
                self.prepared.factory,
                finalists,
                self.spec.finetune,
                resources,
                self.progress,
                arrived,
            )
        self._write(best=tuple(there[name] for name in trials))

    def _is_there(self, best: Best) -> bool:
        if best.artifact is None:
            return False
        return (self.folder.path / best.artifact / "pruning.json").is_file()

    def _without_network(
        self, trial: TrialSpec, asked: Sequence[AskedCandidate], reason: str
    ) -> Best:
        return Best(**_common(trial, asked), error=reason)

    def _with_network(
        self,
        trial: TrialSpec,
        asked: Sequence[AskedCandidate],
        candidate: AskedCandidate,
        finished: Finished,
        failure: str | None,
    ) -> Best:
        structure = self.prepared.evaluator.groups.structure
        task = self.prepared.task
        best = Best(
            **_common(trial, asked),
            error=failure,
            feasible=candidate.feasible,
            widths=candidate.widths,
            costs=dict(candidate.costs),
            flops=int(structure.flops(candidate.widths)),
            params=int(structure.params(candidate.widths)),
            search_reward=candidate.reward,
            found_after=candidate.evaluations_before,
            validation=finished.validation,
            validation_after=finished.validation_after,
            test_before=finished.test_before,
            test_after=finished.test_after,
            finetune_epochs=self.spec.finetune.epochs,
            artifact=f"best/{trial.name}",
        )
        assert best.artifact is not None
        names = [group.name for group in structure.groups]
        measured = best.model_dump(
            mode="json",
            include={
                "costs",
                "flops",
                "params",
                "validation",
                "validation_after",
                "test_before",
                "test_after",
            },
        )
        save_artifact(
            self.folder.path / best.artifact,
            finished.network,
            model=self.spec.task.model,
            num_classes=task.num_classes,
            input_shape=task.input_shape,
            kept={n: list(units) for n, units in zip(names, finished.kept, strict=True)},
            scope=self.spec.task.groups,
            provenance={
                "prunetune": __version__,
                "run": self.folder.name,
                "task": task.digest,
                "budgets": self._limits(trial),
                "criterion": self.spec.criterion,
                "trial": trial.model_dump(mode="json"),
                "finetune": self.spec.finetune.model_dump(mode="json"),
            },
            measured=measured,
        )
        return best

    def _limits(self, trial: TrialSpec) -> dict[str, float]:
        """The trial's budgets as fractions of the dense network's costs."""
        evaluator = self.prepared.evaluator
        structure = evaluator.groups.structure
        costs = measured_costs(structure, evaluator.dense)
        budgets = parse_budgets(trial.budgets, structure, costs, self.spec.smallest)
        return {budget.cost: budget.limit for budget in budgets}

    # --- summary ----------------------------------------------------------------------------

    def _first_summary(self) -> Summary:
        evaluator = self.prepared.evaluator
        structure = evaluator.groups.structure
        measures = dict(evaluator.dense.measures)
        return Summary(
            folder=self.folder.path,
            name=self.spec.name,
            status="running",
            task=self.prepared.task.name,
            criterion=self.spec.criterion,
            repair=self.spec.repair,
            precision=evaluator.precision,
            dense=Dense(
                validation=measures.get(ACCURACY),
                flops=structure.dense_flops,
                params=structure.dense_params,
                groups={group.name: group.size for group in structure.groups},
                measures=measures,
            ),
            environment=self.folder.read_environment(),
        )

    def _write(self, **changes: Any) -> None:
        changes["wall_seconds"] = self._earlier + time.monotonic() - self._began
        self._summary = self._summary.model_copy(update=changes)
        write_summary(self.folder, self._summary)


def _common(trial: TrialSpec, asked: Sequence[AskedCandidate]) -> dict[str, Any]:
    return {
        "trial": trial.name,
        "reward": trial.reward.name,
        "budget": trial.budgets,
        "agent": trial.agent.name,
        "seed": trial.seed,
        "evaluations": len(asked),
        "feasible_candidates": sum(candidate.feasible for candidate in asked),
    }


def _is_taken(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]

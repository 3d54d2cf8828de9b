"""The stages of a run: its searches under Tune, then its best candidates, then its summary."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cluster.pool import EvaluatorPool
from ...cluster.resources import EvaluatorResources
from ...errors import PruneTuneError, RunFolderError
from ...models.progress import Progress
from ..run.folder import RunFolder
from ..run.history import Asked, TrialHistory
from ..run.record import CoordinatorRecord, EvaluationRecord
from ..run.summary import Best, Counts, Dense, Summary, read_summary, write_summary
from ..spec.model import SearchSpec
from ..spec.trials import TrialSpec, comparison_trials
from .delivering import Delivering, missing_networks, resources_of
from .finalists import test_dense
from .preparing import Prepared
from .signals import ended_by_signals
from .stopping import running_yardstick
from .trial import ACCURACY, TrialPlan
from .tuning import Ended, concurrent_trials, run_trials

__all__ = ["RunStages"]


@dataclass
class RunStages:
    """One process's part in a run, from wherever an earlier one left it.

    Attributes:
        folder: The run, whose lock this process holds.
        spec: Its spec.
        prepared: What evaluates candidates, with weights that other processes can load.
        progress: Receives what happens.
    """

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
        """Search, finish the best candidates, and say so in the summary.

        Returns:
            The summary, ``finished``; or ``incomplete`` where all searches have ended and
            something broke while their networks were finished.

        Raises:
            PruneTuneError: If the run failed, after that was noted in its summary.
            KeyboardInterrupt: If the user stopped it; the run can be resumed.
        """
        notes = dict.fromkeys((*self._summary.notes, *self.prepared.notes))
        self._write(status="running", error=None, notes=tuple(notes))
        try:
            with ended_by_signals():
                ended = self._search()
                missing = self._deliver(ended)
            self._check_broken(
                {n: each.failure or "" for n, each in ended.items() if not each.final}
            )
        except KeyboardInterrupt:
            self._write(status="interrupted")
            raise
        except PruneTuneError as error:
            self._write(status="failed", error=str(error))
            raise
        except Exception as error:
            self._write(status="failed", error=f"{type(error).__name__}: {error}")
            raise
        if missing is None:
            self._write(status="finished")
        else:
            self._write(status="incomplete", error=missing)
        return self._summary

    def _check_broken(self, broken: Mapping[str, str]) -> None:
        """What broke off, and not for good, is another process's to continue."""
        for name, reason in broken.items():
            raise RunFolderError(
                f"{len(broken)} of {len(self._trials)} searches broke off, {name} with: {reason}; "
                f"nothing is lost: remove the cause, then `prunetune resume {self.folder.path}`."
            )

    def _search(self) -> dict[str, Ended]:
        spec = self.spec
        record = CoordinatorRecord(self.folder.evaluations, self.prepared.record_key)
        resources = EvaluatorResources(spec.cluster.evaluator_cpus, spec.cluster.evaluator_gpus)
        # A pool of a driver that was killed may live on for seconds, so each has its own name.
        name = f"{self.folder.name}-{_digest(self.folder.path)}-{time.time_ns()}"
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
            plan = TrialPlan(
                histories=self.folder.histories,
                experiment=self.folder.tune,
                pool=pool.name,
                evaluations=spec.evaluations,
                rungs=self.folder.rungs,
                stopping=spec.compare.stopping,
            )
            try:
                with running_yardstick(pool.name, self.prepared.factory, plan.stopping):
                    concurrent = concurrent_trials(spec, len(self._trials))
                    return run_trials(
                        self.folder.tune,
                        self._trials,
                        self.prepared.problems,
                        plan,
                        concurrent,
                        self.progress,
                        self.prepared.factory.live,
                    )
            finally:
                seconds = earlier + time.monotonic() - began
                self._write(search_seconds=seconds, evaluations=self._count(seconds))

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

    def _history(self, trial: TrialSpec) -> list[Asked]:
        return TrialHistory(self.folder.histories / trial.name).load()

    # --- finalists --------------------------------------------------------------------------

    def _deliver(self, ended: Mapping[str, Ended]) -> str | None:
        """Make the networks; returns what is missing, if anything is."""
        missing = self._test_dense()

        def keep(best: tuple[Best, ...]) -> None:
            self._write(best=best)

        delivering = Delivering(
            folder=self.folder,
            spec=self.spec,
            prepared=self.prepared,
            progress=self.progress,
            trials=self._trials,
            place=self.folder.path,
            known=self._summary.best,
        )
        entries = delivering.deliver({name: each.failure for name, each in ended.items()}, keep)
        return missing or missing_networks(entries)

    def _test_dense(self) -> str | None:
        """Test the dense network; returns why it could not be."""
        dense = self._summary.dense
        if dense.test is None:
            try:
                test = test_dense(self.prepared.factory, resources_of(self.spec), self.progress)
            except PruneTuneError as error:
                return f"The dense network could not be tested: {error}"
            self._write(dense=dense.model_copy(update={"test": test}))
        return None

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
            criterion=self.spec.criterion.title,
            repair=self.spec.repair,
            precision=evaluator.precision,
            dense=Dense(
                validation=measures.get(ACCURACY),
                flops=structure.dense_flops,
                params=structure.dense_params,
                groups={group.name: group.size for group in structure.groups},
                measures=measures,
            ),
            environment=self.folder.note_environment(),
        )

    def _write(self, **changes: Any) -> None:
        changes["wall_seconds"] = self._earlier + time.monotonic() - self._began
        self._summary = self._summary.model_copy(update=changes)
        write_summary(self.folder, self._summary)


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]

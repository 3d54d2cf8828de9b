"""What a run says of its best candidates, and their networks in ``best/``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ..._live import is_live
from ...errors import EvaluationError
from ...models.artifact.saving import Pruning, save_artifact
from ...models.costs.registry import measure_costs
from ...models.criteria import written_criterion
from ...models.progress import Progress
from ..agents.provable import guarantee, relative_errors
from ..run.folder import RunFolder
from ..run.history import Asked
from ..run.summary import Best
from ..spec.model import SearchSpec
from .deliveries import Delivery
from .finalists import Finished
from .preparing import Prepared
from .stopping import stopped_at

__all__ = ["BestMaker", "count_asked"]

# What is read back is compared on some images of its own, beside those that all artifacts have.
_COMPARED_IMAGES = 8
# What of a `Best` its artifact says of itself.
_MEASURED = {
    "costs",
    "measured",
    "flops",
    "params",
    "validation",
    "validation_after",
    "test_before",
    "test_after",
}


@dataclass(frozen=True)
class BestMaker:
    """Makes the entries of a run's summary, and the artifacts that they name.

    Attributes:
        folder: The run.
        place: Networks are written to ``place/best``.
        spec: Its spec.
        prepared: What its candidates were evaluated with.
        progress: Receives a note about every cost that cannot be measured.
    """

    folder: RunFolder
    place: Path
    spec: SearchSpec
    prepared: Prepared
    progress: Progress

    def without_network(self, delivery: Delivery, history: Sequence[Asked], reason: str) -> Best:
        """What there is to say where no network came about.

        Args:
            delivery: The network that was wanted.
            history: All candidates of its search.
            reason: Why not, for people.
        """
        return Best(**self._common(delivery, history), error=reason)

    def with_network(
        self,
        delivery: Delivery,
        history: Sequence[Asked],
        chosen: Asked,
        finished: Finished,
    ) -> Best:
        """Measure a finished network's costs and write its artifact.

        Args:
            delivery: The network that was wanted.
            history: All candidates of its search.
            chosen: The one whose network it is.
            finished: Its network.

        Raises:
            PruneTuneError: If it cannot be written, or not be read back.
        """
        structure = self.prepared.evaluator.groups.structure
        delivered: dict[str, float] = {}
        try:
            delivered = measure_costs(delivery.budget, finished.network, self.prepared.task)
        except EvaluationError as error:
            # The network is there all the same; nobody must lose it to a cost that broke.
            self.progress.note(f"{delivery.trial.title}: {error}")
        problem = self.prepared.problems[delivery.trial.name]
        best = Best(
            **self._common(delivery, history),
            # Finalists keep the tabulated limits; a cost of the user's own may have moved since.
            feasible=self.prepared.costs.keeps_own(delivery.limits, delivered),
            candidate=chosen.candidate,
            costs=dict(chosen.costs),
            measured=delivered,
            flops=int(structure.flops(chosen.candidate)),
            params=int(structure.params(chosen.candidate)),
            search_reward=chosen.reward,
            found_after=chosen.evaluations_before,
            validation=finished.validation,
            validation_after=finished.validation_after,
            test_before=finished.test_before,
            test_after=finished.test_after,
            finetune_epochs=finished.epochs,
            missing=finished.missing,
            artifact=f"best/{delivery.name}",
            relative_errors=relative_errors(problem, chosen.candidate),
            notes=(*guarantee(problem, chosen.candidate), *finished.notes),
        )
        self._save(delivery, finished, best)
        return best

    def _save(self, delivery: Delivery, finished: Finished, best: Best) -> None:
        task, evaluator = self.prepared.task, self.prepared.evaluator
        assert best.artifact is not None and best.candidate is not None
        reductions = evaluator.builder.statistics.reductions
        groups = evaluator.groups.structure.groups
        # Live tasks bring images of their own, and the spec's data is nobody's.
        data = None if is_live(self.spec.task.model) else self.spec.task.data
        removed = save_artifact(
            self.place / best.artifact,
            finished.network,
            task.network,
            Pruning(
                model=self.spec.task.model,
                num_classes=task.num_classes,
                input_shape=task.input_shape,
                scope=self.spec.task.groups,
                space=reductions.space,
                candidate=best.candidate,
                kept={g.name: units for g, units in zip(groups, finished.kept, strict=True)},
                layers=reductions.kept_channels(task.network, best.candidate),
            ),
            images=task.validation.images[:_COMPARED_IMAGES],
            provenance={
                "prunetune": __version__,
                "run": self.folder.name,
                "task": task.digest,
                "data": None if data is None else data.model_dump(mode="json"),
                "budgets": dict(delivery.limits),
                "criterion": written_criterion(self.spec.criterion),
                "trial": delivery.trial.model_dump(mode="json"),
                "finetune": self.spec.finetune.model_dump(mode="json"),
            },
            measured=best.model_dump(mode="json", include=_MEASURED),
        )
        if removed:
            self.progress.note(
                f"{delivery.name}: {' and '.join(removed)} had the weights before and "
                f"{'was' if len(removed) == 1 else 'were'} removed; export the network again."
            )

    def _common(self, delivery: Delivery, history: Sequence[Asked]) -> dict[str, Any]:
        trial, several = delivery.trial, delivery.is_one_of_several
        return {
            "trial": delivery.name,
            "search": trial.name if several else None,
            "limits": delivery.limits if several else {},
            "reward": trial.reward.name,
            "budget": delivery.budget,
            "agent": trial.agent.name,
            "seed": trial.seed,
            "stopped": stopped_at(self.folder.rungs, trial.name) is not None,
            **count_asked(history),
        }


def count_asked(history: Sequence[Asked]) -> dict[str, int]:
    """How many candidates a search asked for, by the names that `Best` has for them."""
    return {
        "evaluations": len(history),
        "feasible_candidates": sum(asked.feasible for asked in history),
    }

"""Delivering networks: repaired and written first, then fine-tuned and written again.

Whatever breaks on the way, what was reached is delivered: a network that could not be fine-tuned
or tested is the repaired one, its entry says what is missing, and the next process tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import PruneTuneError
from ...models.progress import Progress
from ..run.folder import RunFolder
from ..run.history import Asked, TrialHistory
from ..run.summary import Best
from ..spec.model import SearchSpec
from ..spec.trials import TrialSpec
from .best import BestMaker, count_asked
from .deliveries import Delivery, deliveries
from .finalists import Finished, finish_candidates
from .preparing import Prepared

__all__ = ["Delivering", "missing_networks", "resources_of"]


def resources_of(spec: SearchSpec) -> dict[str, float]:
    """What one piece of work occupies, by Ray's names: as much as an evaluator."""
    return {"num_cpus": spec.cluster.evaluator_cpus, "num_gpus": spec.cluster.evaluator_gpus}


def missing_networks(entries: Sequence[Best]) -> str | None:
    """One sentence about the networks that are not finished, ``None`` where all of them are."""
    left = [each for each in entries if each.missing is not None]
    if not left:
        return None
    several = f"{len(left)} of {len(entries)} networks are not finished, " if left[1:] else ""
    return f"{several}{left[0].trial}: {left[0].missing}"


@dataclass(frozen=True)
class Delivering:
    """Makes the networks of a run.

    Attributes:
        folder: The run.
        spec: Its spec.
        prepared: What its candidates were evaluated with.
        progress: Receives what happens.
        trials: Its searches, in order.
        place: Networks are written to ``place/best``: the run's folder, or one beside it.
        known: What an earlier process delivered there, and which candidates it chose.
    """

    folder: RunFolder
    spec: SearchSpec
    prepared: Prepared
    progress: Progress
    trials: Sequence[TrialSpec]
    place: Path
    known: Sequence[Best]

    def deliver(
        self, failures: Mapping[str, str | None], keep: Callable[[tuple[Best, ...]], None]
    ) -> tuple[Best, ...]:
        """Make what is not there yet.

        Args:
            failures: Why searches ended early, by name.
            keep: Called with all entries that there are, whenever there is news.

        Returns:
            One entry a network that was wanted.

        Raises:
            RunFolderError: If the searches' histories cannot be read.
        """
        wanted = {
            each.name: each
            for trial in self.trials
            for each in deliveries(trial, self.prepared.problems[trial.name].budgets)
        }
        maker = BestMaker(self.folder, self.place, self.spec, self.prepared, self.progress)
        asked = {t.name: TrialHistory(self.folder.histories / t.name).load() for t in self.trials}
        histories = {name: asked[each.trial.name] for name, each in wanted.items()}
        finalists = {
            name: each.finalists(histories[name], self.spec.finalists)
            for name, each in wanted.items()
        }
        there = {best.trial: best for best in self._still_good(histories, finalists)}
        finished = {name for name, best in there.items() if best.missing is None}
        for name, delivery in wanted.items():
            if not finalists[name]:
                reason = failures.get(delivery.trial.name) or (
                    "No candidate kept all budgets; raise evaluations or the limits."
                )
                there[name] = maker.without_network(delivery, histories[name], reason)
        keep(tuple(there[each] for each in wanted if each in there))

        def arrived(name: str, chosen: Asked, result: Finished | PruneTuneError) -> None:
            entry = _entry(maker, wanted[name], histories[name], chosen, result)
            if entry.artifact is None and name in there:
                # An earlier process, or this one, has come further.
                there[name] = there[name].model_copy(update={"missing": entry.missing})
                return
            among = tuple(each.candidate for each in finalists[name])
            error = entry.error or failures.get(wanted[name].trial.name)
            there[name] = entry.model_copy(update={"finalists": among, "error": error})
            keep(tuple(there[each] for each in wanted if each in there))

        missing = {
            name: self._undecided(name, chosen)
            for name, chosen in finalists.items()
            if chosen and name not in finished
        }
        if missing:
            finish_candidates(
                self.prepared.factory,
                missing,
                self.spec.finetune,
                resources_of(self.spec),
                self.progress,
                arrived,
            )
        entries = tuple(there[name] for name in wanted)
        keep(entries)
        return entries

    def _still_good(
        self,
        histories: Mapping[str, Sequence[Asked]],
        finalists: Mapping[str, Sequence[Asked]],
    ) -> Iterator[Best]:
        """What an earlier process delivered, unless its search has found better ones since."""
        for best in self.known:
            asked, chosen = histories.get(best.trial), finalists.get(best.trial)
            if asked is None or chosen is None or best.artifact is None:
                continue
            same = best.finalists == tuple(candidate.candidate for candidate in chosen)
            if same and (self.place / best.artifact / "pruning.json").is_file():
                yield best.model_copy(update=count_asked(asked))

    def _undecided(self, name: str, chosen: Sequence[Asked]) -> Sequence[Asked]:
        """``chosen``, or the one of them that an earlier process has taken already."""
        among = tuple(candidate.candidate for candidate in chosen)
        for best in self.known:
            if best.trial == name and best.candidate is not None and best.finalists == among:
                return [candidate for candidate in chosen if candidate.candidate == best.candidate]
        return chosen


def _entry(
    maker: BestMaker,
    delivery: Delivery,
    history: Sequence[Asked],
    chosen: Asked,
    result: Finished | PruneTuneError,
) -> Best:
    """What the summary says of a network that arrived, or that could not be had or written."""
    if not isinstance(result, PruneTuneError):
        try:
            return maker.with_network(delivery, history, chosen, result)
        except PruneTuneError as error:
            result = error
    entry = maker.without_network(delivery, history, str(result))
    return entry.model_copy(update={"missing": str(result)})

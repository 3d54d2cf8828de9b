"""Fine-tuning what a run found once more: it gets all new networks, or keeps those it has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ...errors import RunFolderError
from ...models.progress import Progress
from ..run.checkpoints import read_end
from ..run.continuation import note_identity
from ..run.folder import RunFolder
from ..run.replacement import Replacement
from ..run.summary import Best, Summary
from ..spec.model import SearchSpec
from ..spec.trials import comparison_trials
from .delivering import Delivering, missing_networks
from .preparing import Prepared
from .signals import ended_by_signals

__all__ = ["finetune_again"]


def finetune_again(
    folder: RunFolder, spec: SearchSpec, prepared: Prepared, summary: Summary, progress: Progress
) -> Summary:
    """Make the networks of a finished run anew, by another ``finetune``.

    Networks, spec and summary of the run change together, when all networks are there. Until then
    the run is as it was, whatever ends this process; what had been made is gone on with.

    Args:
        folder: The run, locked by the caller.
        spec: Its spec with the new ``finetune``.
        prepared: What its candidates were evaluated with.
        summary: Its summary; of a run that is finished, or incomplete.
        progress: Receives what happens.

    Returns:
        The new summary.

    Raises:
        PruneTuneError: If a network could not be made; the run is as it was.
        KeyboardInterrupt: If the user stopped it; the run is as it was, and resuming it goes on.
    """
    began = time.monotonic()
    replacement = Replacement(folder)
    replacement.begin(spec.to_dict())
    trials = comparison_trials(spec)
    ends = {t.name: read_end(folder.histories / t.name, spec.evaluations) for t in trials}

    def keep(best: tuple[Best, ...]) -> None:
        replacement.run.write_json(
            "summary.json", summary.model_copy(update={"best": best}).model_dump(mode="json")
        )

    delivering = Delivering(
        folder=folder,
        spec=spec,
        prepared=prepared,
        progress=progress,
        trials=trials,
        place=replacement.run.path,
        known=_known(replacement, summary),
    )
    failures = {name: end.failure for name, end in ends.items() if end is not None}
    with ended_by_signals():
        entries = delivering.deliver(failures, keep)
    missing = missing_networks(entries)
    if missing is not None:
        replacement.drop()
        raise RunFolderError(f"{missing} The run {folder.path} has the networks that it had.")
    after = summary.model_copy(
        update={
            "status": "finished",
            "error": None,
            "best": entries,
            "wall_seconds": summary.wall_seconds + time.monotonic() - began,
        }
    )
    replacement.run.write_json("summary.json", after.model_dump(mode="json"))
    note_identity(replacement.run, spec, *prepared.identity)
    removed = replacement.decide()
    if removed:
        progress.note(
            f"{' and '.join(removed)} had the weights before and "
            f"{'was' if len(removed) == 1 else 'were'} removed; export the networks again."
        )
    return after


def _known(replacement: Replacement, summary: Summary) -> tuple[Best, ...]:
    """What was made already, or which candidates the run's present networks are."""
    if replacement.run.summary_path.is_file():
        values: Mapping[str, Any] = replacement.run.read_summary()
        begun = Summary.model_validate({**values, "folder": replacement.run.path})
        return begun.best
    return summary.best

"""The ways into a run: a search or a comparison in a new folder, resuming, fine-tuning anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cluster.connect import connect
from ...errors import SpecError, UnknownNameError
from ...models.progress import SILENT, Progress
from ..run.continuation import (
    check_comparable,
    check_known,
    check_same_spec,
    note_identity,
    with_known_precision,
)
from ..run.folder import MARKER, RunFolder
from ..run.replacement import Replacement, put_in_place
from ..run.summary import Summary, read_summary, write_summary
from ..run.trust import check_trusted, remember
from ..spec.model import SearchSpec
from ..spec.reading import override_values, read_spec
from .finetuning import finetune_again
from .preparing import prepare
from .rehearsing import rehearse
from .stages import RunStages

__all__ = ["RunInterrupted", "finetune_run", "resume_run", "run_comparison", "run_search"]

_DEFAULT_ROOT = "runs"
_SEARCHED = ("finished", "incomplete")


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by its user, and can be resumed.

    Args:
        address: What users call the run: its folder or its URI.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


def run_search(spec: SearchSpec, progress: Progress = SILENT) -> Summary:
    """Run one search in a new folder; the spec's ``compare`` is left out.

    Args:
        spec: The spec.
        progress: Receives what happens.

    Raises:
        PruneTuneError: If the spec asks for something impossible, before anything is written; or
            if the run failed, after that was noted in its summary.
        RunInterrupted: If the user stopped it; the run can be resumed.
        KeyboardInterrupt: If the user stopped it before there was a run folder.
    """
    return run_comparison(spec.one_search(), progress)


def run_comparison(spec: SearchSpec, progress: Progress = SILENT) -> Summary:
    """Run all searches of a spec's grid in a new folder; see `run_search`."""
    values = spec.to_dict()
    if spec.output is not None and _is_taken(spec.output.expanduser()):
        # Says what is there, before any time is spent on training the dense network.
        RunFolder.create(spec.output, values)
    prepared = prepare(spec, progress)
    rehearse(spec, prepared, progress)
    connect(spec.cluster)
    folder = (
        RunFolder.create(spec.output, values)
        if spec.output is not None
        else RunFolder.create_numbered(spec.name, values, _DEFAULT_ROOT)
    )
    with folder.lock():
        remember(folder)
        note_identity(folder, spec, *prepared.identity)
        try:
            return RunStages(folder, spec, prepared.keep(folder), progress).run()
        except KeyboardInterrupt:
            raise RunInterrupted(str(folder.path)) from None


def resume_run(
    path: Path | str,
    progress: Progress = SILENT,
    evaluations: int | None = None,
    spec: SearchSpec | None = None,
    trust: bool = False,
) -> Summary:
    """Continue a run after anything that ended it early; nothing is evaluated twice.

    Args:
        path: The run folder.
        progress: Receives what happens.
        evaluations: Candidates that each search may ask for in all, where that is more than
            before; finished searches go on from where they ended.
        spec: What the user asks for now, evaluations included; the run's own spec when left out.
            It replaces the run's, from which it may differ in where the run happens, how long it
            is, and where its files are. A run that is found where the user's own spec puts it is
            trusted.
        trust: Whether to run the code of a run that was not begun here by this user; see
            ``run.trust``.

    Returns:
        The summary; of a run that had finished, the one it has.

    Raises:
        PruneTuneError: If there is no run, another process has it, or it cannot be continued
            because something that its results depend on has changed.
        KeyboardInterrupt: If the user stopped it again.
    """
    folder = RunFolder.open(path)
    with folder.lock():
        check_trusted(folder, folder.read_spec(), trust or spec is not None)
        put_in_place(folder)
        begun, summary = folder.read_spec(), read_summary(folder)
        if spec is not None:
            check_same_spec(folder, spec)
        else:
            spec = _own_spec(folder, begun)
        before = int(begun.get("evaluations", spec.evaluations))
        wanted = spec.evaluations if evaluations is None else evaluations
        if wanted < before:
            raise SpecError(
                f"Each search of {folder.path} may ask for {before} evaluations already; give a "
                "larger number of evaluations, or leave it out."
            )
        longer = wanted > before
        replacement = Replacement(folder)
        if summary is not None and summary.status in _SEARCHED and not longer:
            further = replacement.spec()
            if further is not None:
                return _finetune_further(folder, spec, further, summary, progress)
            if summary.status == "finished":
                progress.note(f"The run {folder.path} is finished; there is nothing to resume.")
                return summary
        check_known(folder, spec)
        prepared = prepare(with_known_precision(folder, spec), progress, folder)
        check_comparable(folder, spec, *prepared.identity)
        if longer and summary is not None:
            # Searches that had ended have not ended at this length.
            write_summary(folder, summary.model_copy(update={"status": "interrupted"}))
        spec = spec.model_copy(update={"evaluations": wanted})
        if spec.to_dict() != begun:
            # The note first: what it knows of and the spec lacks has its default.
            note_identity(folder, spec, *prepared.identity)
            folder.write_spec(spec.to_dict())
        connect(spec.cluster)
        # Its networks would be those of the search as it was.
        replacement.drop()
        return RunStages(folder, spec, prepared.keep(folder), progress).run()


def finetune_run(
    path: Path | str,
    overrides: Sequence[str],
    progress: Progress = SILENT,
    trust: bool = False,
) -> Summary:
    """Fine-tune what a run found anew, otherwise; nothing is searched again.

    Networks, report and spec of the run are replaced when all new networks are there. A run that
    was interrupted goes on first, as its own spec says.

    Args:
        path: The run folder.
        overrides: What changes of the spec's ``finetune``, ``key=value`` each.
        progress: Receives what happens.
        trust: As for `resume_run`.

    Raises:
        PruneTuneError: If there is no run, another process has it, an override makes no sense, or
            a network could not be made; the run has the networks that it had.
        KeyboardInterrupt: If the user stopped it; the run can be resumed.
    """
    folder = RunFolder.open(path)
    with folder.lock():
        check_trusted(folder, folder.read_spec(), trust)
        put_in_place(folder)
        values = folder.read_spec()
        before = _own_spec(folder, values)
        override_values(values, [f"finetune.{override}" for override in overrides])
        spec = read_spec(values, str(folder.path / "spec.yaml"))
        check_known(folder, before)
        prepared = prepare(with_known_precision(folder, spec), progress, folder)
        check_comparable(folder, before, *prepared.identity)
        rehearse(spec, prepared, progress)
        connect(spec.cluster)
        prepared, summary = prepared.keep(folder), read_summary(folder)
        if summary is None or summary.status not in _SEARCHED:
            summary = RunStages(folder, before, prepared, progress).run()
        return finetune_again(folder, spec, prepared, summary, progress)


def _finetune_further(
    folder: RunFolder,
    spec: SearchSpec,
    values: Mapping[str, Any],
    summary: Summary,
    progress: Progress,
) -> Summary:
    """Go on with a `finetune_run` that was interrupted."""
    wanted = _own_spec(folder, values)
    check_known(folder, spec)
    prepared = prepare(with_known_precision(folder, wanted), progress, folder)
    check_comparable(folder, spec, *prepared.identity)
    connect(wanted.cluster)
    return finetune_again(folder, wanted, prepared.keep(folder), summary, progress)


def _own_spec(folder: RunFolder, values: Mapping[str, Any]) -> SearchSpec:
    """The spec that a run was begun with, perhaps by a version that knew other parameters.

    Raises:
        SpecError: If this version cannot read it; says where it is, and which version can.
    """
    source = folder.path / "spec.yaml"
    try:
        return read_spec(values, str(source))
    except (SpecError, UnknownNameError) as error:
        raise SpecError(
            f"The run's {source} does not fit this version of prunetune: {error} Correct it there, "
            f"or go on with the version that {folder.path / MARKER} names."
        ) from error


def _is_taken(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))

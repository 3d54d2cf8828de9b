"""Beginning and continuing runs wherever they are kept; for the Python API and the command line.

A run is a folder, or a copy of one in a storage that is named by a URI. What is done with a run
inside these contexts, such as writing its report, reaches the storage, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...errors import PruneTuneError
from ...models.progress import Progress
from ..engine.entry import RunInterrupted, finetune_run, resume_run, run_comparison
from ..run.location import holds_run, opened_run, stored
from ..spec.model import SearchSpec
from .results import Run

__all__ = ["finetuned_run", "new_run", "resumed_run"]


@contextmanager
def new_run(
    spec: SearchSpec, progress: Progress, *, comparison: bool, resume: bool = False
) -> Iterator[Run]:
    """Run a search, or all searches of a spec's grid.

    Args:
        spec: The spec.
        progress: Receives what happens.
        comparison: Whether the grid is run; otherwise the spec's ``compare`` is left out.
        resume: Whether a run that is in the output folder is continued rather than refused.

    Yields:
        The run, which has ended.

    Raises:
        PruneTuneError: If the spec asks for something impossible, or the run failed.
        RunInterrupted: If the user stopped it, and it can be resumed.
        KeyboardInterrupt: If the user stopped it before there was a run.
    """
    spec = spec if comparison else spec.one_search()
    with stored(spec, resume) as place:
        spec = spec.model_copy(update={"output": place.folder})
        if resume and place.folder is not None and holds_run(place.folder):
            with _plainly(place.address):
                summary = resume_run(place.folder, progress, spec=spec)
        else:
            with _plainly(None):
                try:
                    summary = run_comparison(spec, progress)
                except RunInterrupted as interrupted:
                    raise RunInterrupted(place.address or interrupted.address) from None
        yield Run(summary.folder, trust=True)


@contextmanager
def resumed_run(
    run: str, progress: Progress, *, evaluations: int | None = None, trust: bool = False
) -> Iterator[Run]:
    """Continue a run after anything that ended it early.

    Args:
        run: Its folder, or its URI in a storage.
        progress: Receives what happens.
        evaluations: Candidates that each search may ask for in all, where that is more than before.
        trust: Whether the code of a run that was not begun here by this user is run.

    Yields:
        The run, which has ended.

    Raises:
        PruneTuneError: If there is no run, or it cannot be continued.
        RunInterrupted: If the user stopped it again.
    """
    with opened_run(run) as folder:
        with _plainly(run):
            summary = resume_run(folder, progress, evaluations=evaluations, trust=trust)
        yield Run(summary.folder, trust=True)


@contextmanager
def finetuned_run(
    run: str, overrides: Sequence[str], progress: Progress, *, trust: bool = False
) -> Iterator[Run]:
    """Fine-tune what a run found anew; nothing is searched again.

    Args:
        run: Its folder, or its URI in a storage.
        overrides: What changes of the spec's ``finetune``, ``key=value`` each.
        progress: Receives what happens.
        trust: Whether the code of a run that was not begun here by this user is run.

    Yields:
        The run, which has ended.

    Raises:
        PruneTuneError: If there is no run, or an override makes no sense.
        RunInterrupted: If the user stopped it; the run can be resumed.
    """
    with opened_run(run) as folder:
        with _plainly(run):
            summary = finetune_run(folder, overrides, progress, trust=trust)
        yield Run(summary.folder, trust=True)


@contextmanager
def _plainly(run: str | None) -> Iterator[None]:
    """Raise what a worker raised as it was, and let an interruption say which run it left.

    Args:
        run: What users call the run that exists already, or ``None``.
    """
    try:
        yield
    except KeyboardInterrupt:
        if run is None:
            raise
        raise RunInterrupted(run) from None
    except PruneTuneError as error:
        # Ray's own error around it has a traceback for a text.
        cause = getattr(error, "cause", None)
        if isinstance(cause, PruneTuneError):
            raise cause from None
        raise

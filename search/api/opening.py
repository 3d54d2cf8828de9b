"""What is there already: runs to look into and to resume, and pruned networks to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._live import is_live, live_name, live_references
from ..._references import resolve
from ...errors import PluginError, RunFolderError
from ...models.progress import Progress
from ..run.folder import RunFolder
from ..run.location import opened_run
from ..spec.reading import read_spec
from .objects import named
from .progress_bar import chosen_progress
from .results import Run
from .stored_runs import resumed_run
from .task import Task

if TYPE_CHECKING:
    from torch import nn

    from ...models.artifact import Artifact

__all__ = ["load", "open_run", "resume"]


def open_run(run: Path | str, *, trust: bool = False) -> Run:
    """A run that exists, whatever made it and however far it got.

    Example:
        >>> open_run("runs/search-1").frame()

    Args:
        run: Its folder, or its URI in a storage.
        trust: As for `load`, when its networks are asked for.

    Raises:
        RunFolderError: If there is no run.
    """
    with opened_run(str(run)) as folder:
        return Run(folder, trust=trust)


def resume(
    run: Path | str,
    task: Task | None = None,
    *,
    objects: Sequence[Any] = (),
    evaluations: int | None = None,
    progress: bool | Progress = True,
    trust: bool = False,
) -> Run:
    """Continue a run after anything that ended it early; nothing is evaluated twice.

    Example:
        >>> resume("runs/search-1", task=task, evaluations=600)

    Args:
        run: Its folder, or its URI in a storage.
        task: The task it began with, where that was made of a network of a Python session.
        objects: Rewards, agents and the like of the user's own that it began with.
        evaluations: Candidates that each search may ask for in all, where that is more than before.
        progress: As in `prune`.
        trust: Whether to run the code of a run that was not begun here by you: the files and
            modules that it names, and the pickles in its checkpoints.

    Raises:
        PruneTuneError: If there is no run, or it cannot be continued: another task or object, or
            another process has it.
        KeyboardInterrupt: If it was stopped again.
    """
    given = set(named(list(objects)))
    with opened_run(str(run)) as folder:
        _check_given(folder, task, given)
    shown = chosen_progress(progress)
    with resumed_run(str(run), shown, evaluations=evaluations, trust=trust) as continued:
        return continued


def load(
    folder: Path | str,
    network: nn.Module | Callable[[], nn.Module] | None = None,
    *,
    model: str | None = None,
    trust: bool = False,
) -> Artifact:
    """A pruned network from its folder, which is data: nothing is run that it names.

    Example:
        >>> load("half/").network
        >>> load("half/", network=SmallNet(num_classes=10)).network
        >>> load("half/", model="nets/small.py:SmallNet").network

    Args:
        folder: As ``run.best.save`` wrote it, or ``RUN/best/TRIAL``.
        network: The dense network that was pruned, with any weights, or a function that builds it;
            needed where no file or package has a name for it.
        model: What builds the dense network, ``FILE.py:NAME``, in place of what the artifact says,
            for example because the file has moved. It is run.
        trust: Run the file or module of the user's own that the artifact names.

    Raises:
        PruneTuneError: If it is no pruned network, was changed, is not of this dense one, or needs
            code that the caller does not trust.
    """
    import torch

    from ...models.artifact import load_artifact

    if network is not None and not isinstance(network, torch.nn.Module):
        network = network()
    return load_artifact(Path(folder).expanduser(), network, model=model, trust=trust)


def _check_given(folder: Path, task: Task | None, objects: set[str]) -> None:
    """Whether a run that is resumed has the task and the objects that it began with.

    Raises:
        RunFolderError: If not; says which.
    """
    values = RunFolder.open(folder).read_spec()
    begun = read_spec(values, f"{folder}/spec.yaml", check=False).task
    if task is not None and (task.spec.model, task.spec.groups) != (begun.model, begun.groups):
        raise RunFolderError(
            f"The run {folder} began with the network {_named(begun.model)}, and the task has "
            f"{_named(task.spec.model)}; give the network and the images that it began with."
        )
    if is_live(begun.model) and not _is_known(begun.model):
        raise RunFolderError(
            f"The run {folder} prunes {_named(begun.model)}, a network of the Python session that "
            "began it; give that task again: prunetune.resume(RUN, task=prunetune.Task(...))."
        )
    for reference in sorted(live_references(values)):
        if reference in (begun.model, begun.data.name) or _is_known(reference):
            continue
        same = [each for each in objects if live_name(each) == live_name(reference)]
        raise RunFolderError(
            f"The {live_name(same[0])} that was given has changed since the run {folder} began; "
            "give the one it began with."
            if same
            else f"The run {folder} needs {_named(reference)}, an object of the Python session "
            "that began it; give it: prunetune.resume(RUN, objects=[...])."
        )


def _named(reference: str) -> str:
    if not is_live(reference):
        return repr(reference)
    return f"{live_name(reference)!r} (digest {reference.rpartition('@')[2]})"


def _is_known(reference: str) -> bool:
    try:
        resolve(reference, "object")
    except PluginError:
        return False
    return True

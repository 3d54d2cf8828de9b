"""Searching, comparing, resuming and evaluating from Python; the command line's own functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._live import is_live, live_name, live_references
from ..._registry import resolve
from ...errors import PluginError, PruneTuneError, RunFolderError, SpecError
from ...models.progress import Progress
from ...rewards import Evaluation
from ...rewards.evaluation.evaluations import InProcessEvaluations
from ..engine.entry import RunInterrupted, resume_run, run_comparison, run_search
from ..engine.preparing import prepare
from ..run.folder import RunFolder
from ..run.location import opened_run, stored
from ..run.summary import Summary
from ..spec.model import SearchSpec
from ..spec.paths import anchor_paths
from ..spec.reading import read_spec
from .objects import budget_values, named
from .progress_bar import chosen_progress
from .results import Run
from .task import Task

if TYPE_CHECKING:
    from torch import nn

    from ...models.artifact import Artifact

__all__ = ["compare", "evaluate", "load", "open_run", "prune", "resume"]

# Keys of a spec whose values may be classes and objects of the user's own.
_OWN = ("reward", "agent", "measures", "criterion")
_KEPT_EVALUATORS = 2


def prune(
    task: Task,
    budgets: Mapping[Any, Any],
    *,
    method: str | None = None,
    reward: Any = None,
    agent: Any = None,
    evaluations: int | None = None,
    finetune: int | Mapping[str, Any] | None = None,
    seed: int = 0,
    output: Path | str | None = None,
    cluster: str | Mapping[str, Any] | None = None,
    progress: bool | Progress = True,
    **keys: Any,
) -> Run:
    """Search for a smaller network, and finish the best one.

    Example:
        >>> run = prune(task, budgets={"flops": 0.5}, evaluations=300, finetune=5)
        >>> run.best.network, run.best.accuracy, run.best.costs

    Args:
        task: What is pruned.
        budgets: Limits by name of cost, such as ``{"flops": 0.5}`` or ``{"params": "60M"}``. A cost
            may be a function ``(network, example_input) -> number`` of the user's own.
        method: A published method, such as ``"pfp"`` or ``"amc"``, whose part of a spec stands
            under what else is given here; ``prunetune list methods`` names them.
        reward: What the agent maximises, ``accuracy`` by default: a name,
            ``{"name": ..., "parameters": {...}}``, or a class or object of the user's own,
            which workers are sent by value.
        agent: What proposes candidates, ``ppo-lagrangian`` by default; the same, but no object: a
            class.
        evaluations: Candidates that the agent may ask for; 1,000 by default.
        finetune: Epochs of fine-tuning the best candidates, or the keys of ``finetune`` in a spec.
        seed: Seeds the splits, the training and the agent.
        output: The run folder; ``runs/NAME-NUMBER`` when left out. It can be resumed.
        cluster: Address of a Ray cluster, or the keys of ``cluster`` in a spec. Ray is started on
            this machine where it is not running.
        progress: Whether to show how it gets on; or what receives it.
        **keys: Any other key of a spec, such as ``repair="light"`` or ``images=1000``. ``measures``
            and ``criterion`` may be objects and classes, too.

    Returns:
        The run.

    Raises:
        PruneTuneError: If anything asked for is impossible; says what to change.
        KeyboardInterrupt: If it was stopped; `resume` continues it.
    """
    values = _values(task, finetune, cluster, keys)
    values |= {"budgets": budget_values(budgets), "seed": seed, "output": _path(output)}
    given = {"method": method, "evaluations": evaluations}
    given |= {"reward": named(reward), "agent": named(agent)}
    values |= {key: value for key, value in given.items() if value is not None}
    return _run(_spec(values, "prunetune.prune"), run_search, progress)


def compare(
    task: Task,
    *,
    budgets: Mapping[Any, Any] | Sequence[Mapping[Any, Any]],
    rewards: Sequence[Any] = ("accuracy",),
    agents: Sequence[Any] = ("ppo-lagrangian",),
    seeds: int | Sequence[int] = 1,
    evaluations: int = 1000,
    finetune: int | Mapping[str, Any] | None = None,
    seed: int = 0,
    output: Path | str | None = None,
    cluster: str | Mapping[str, Any] | None = None,
    stopping: Mapping[str, Any] | None = None,
    progress: bool | Progress = True,
    **keys: Any,
) -> Run:
    """Search once for every reward, set of budgets, agent and seed, side by side.

    Example:
        >>> grid = compare(task, rewards=["accuracy", "spatial-entropy"],
        ...                budgets=[{"flops": 0.5}, {"flops": 0.3}], seeds=5)
        >>> grid.report()

    Args:
        task: What is pruned.
        budgets: Sets of budgets to compare, or a single one.
        rewards: Rewards to compare; each as in `prune`.
        agents: Agents to compare; each as in `prune`.
        seeds: Seeds of the agents, or how many, beginning with ``seed``.
        evaluations: Candidates that each search may ask for. Searches share their evaluations.
        finetune: As in `prune`.
        seed: Seeds the splits and the training, which all searches share.
        output: As in `prune`.
        cluster: As in `prune`.
        stopping: Keys of ``compare.stopping`` in a spec, to stop hopeless searches; never when
            left out.
        progress: As in `prune`.
        **keys: Any other key of a spec.

    Returns:
        The run; its networks are ``run.bests``.

    Raises:
        PruneTuneError: As `prune`.
        KeyboardInterrupt: If it was stopped; `resume` continues it.
    """
    sets = [budgets] if isinstance(budgets, Mapping) else list(budgets)
    if not sets:
        raise SpecError("There are no budgets to compare; give one, such as {'flops': 0.5}.")
    values = _values(task, finetune, cluster, keys)
    grid = {
        "rewards": named(list(rewards)),
        "budgets": budget_values(sets),
        "agents": named(list(agents)),
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
        "stopping": None if stopping is None else dict(stopping),
    }
    values |= {"budgets": grid["budgets"][0], "compare": grid, "evaluations": evaluations}
    values |= {"seed": seed, "output": _path(output)}
    return _run(_spec(values, "prunetune.compare"), run_comparison, progress)


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
        with _plain_errors():
            summary = resume_run(
                folder, chosen_progress(progress), evaluations=evaluations, trust=trust
            )
        return Run(summary.folder, trust=True)


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


def evaluate(
    task: Task,
    candidate: Sequence[int] | Mapping[str, int],
    *,
    seed: int = 0,
    progress: bool | Progress = False,
    **keys: Any,
) -> Evaluation:
    """Evaluate one candidate in this process, as a search would.

    Example:
        >>> evaluate(task, {"conv1": 8, "conv2": 16}).measures["accuracy"]
        >>> evaluate(task, run.best.candidate, repair="light").costs

    Args:
        task: What is pruned.
        candidate: One whole number per decision, in the order of ``task.groups()``; or widths by
            name of channel group, where groups that are left out stay whole.
        seed: As in `prune`: with equal seeds, the same images are calibrated and judged on.
        progress: As in `prune`.
        **keys: Keys of a spec that say how candidates are evaluated: ``repair``, ``criterion``,
            ``precision``, ``recalibration``, ``images``, ``measures``.

    Returns:
        All measures and costs; ``error`` says why where it could not be evaluated.

    Raises:
        PruneTuneError: If the candidate does not fit the network, or a key is wrong.
    """
    values = _values(task, None, None, keys)
    spec = _spec(values | {"budgets": {"flops": 1.0}, "seed": seed}, "prunetune.evaluate")
    key = spec.model_dump_json()
    if key not in _EVALUATORS:
        # Statistics of the dense network are gathered once, not for every candidate.
        while len(_EVALUATORS) >= _KEPT_EVALUATORS:
            del _EVALUATORS[next(iter(_EVALUATORS))]
        evaluator = prepare(spec, chosen_progress(progress)).evaluator
        sizes = {group.name: group.size for group in evaluator.groups}
        _EVALUATORS[key] = InProcessEvaluations(evaluator), sizes
    evaluations, sizes = _EVALUATORS[key]
    return evaluations.evaluate([_candidate(candidate, sizes)])[0]


# By spec, what evaluates in this process and the sizes of the channel groups.
_EVALUATORS: dict[str, tuple[InProcessEvaluations, dict[str, int]]] = {}


def _candidate(
    given: Sequence[int] | Mapping[str, int], sizes: Mapping[str, int]
) -> tuple[int, ...]:
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in sizes]
        if unknown:
            raise SpecError(
                f"The network has no channel group {unknown[0]!r}; it has {', '.join(sizes)}."
            )
        given = tuple(given.get(name, size) for name, size in sizes.items())
    candidate = tuple(int(value) for value in given)
    if len(candidate) != len(sizes):
        raise SpecError(
            f"The candidate has {len(candidate)} numbers, but the network has {len(sizes)} "
            "decisions; see task.groups()."
        )
    for (name, size), value in zip(sizes.items(), candidate, strict=True):
        if not 1 <= value <= size:
            raise SpecError(f"{name} keeps 1 to {size} units, not {value}.")
    return candidate


def _values(
    task: Task,
    finetune: int | Mapping[str, Any] | None,
    cluster: str | Mapping[str, Any] | None,
    keys: Mapping[str, Any],
) -> dict[str, Any]:
    if not isinstance(task, Task):
        raise SpecError(
            f"The task is a {type(task).__name__}; give prunetune.Task(network, train=..., "
            "test=...)."
        )
    values: dict[str, Any] = {key: named(v) if key in _OWN else v for key, v in keys.items()}
    values.setdefault("name", task.name.rpartition(":")[2])
    values["task"] = task.spec.model_dump(mode="json")
    if finetune is not None:
        values["finetune"] = {"epochs": finetune} if isinstance(finetune, int) else dict(finetune)
    if cluster is not None:
        values["cluster"] = {"address": cluster} if isinstance(cluster, str) else dict(cluster)
    return values


def _spec(values: Mapping[str, Any], source: str) -> SearchSpec:
    spec = read_spec(values, f"the arguments of {source}", check=False)
    return read_spec(anchor_paths(spec.to_dict(), Path.cwd()))


def _path(path: Path | str | None) -> str | None:
    return None if path is None else str(path)


def _run(
    spec: SearchSpec,
    function: Callable[[SearchSpec, Progress], Summary],
    progress: bool | Progress,
) -> Run:
    shown = chosen_progress(progress)
    with stored(spec, resume=False) as place, _plain_errors():
        spec = spec.model_copy(update={"output": place.folder})
        try:
            return Run(function(spec, shown).folder, trust=True)
        except RunInterrupted as interrupted:
            shown.note(
                "Interrupted; no evaluation is lost. Continue with "
                f"prunetune.resume({str(place.address or interrupted.folder)!r}, task=task)."
            )
            raise


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


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what a worker raised as it was, without Ray's traceback around it."""
    try:
        yield
    except PruneTuneError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, PruneTuneError):
            raise cause from None
        raise

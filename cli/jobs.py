"""Commands for clusters: submit a run, look after it, or write it down for Kubernetes."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .commands import AsJson, Overrides, SpecPath, plainly, run_spec, say

if TYPE_CHECKING:
    from ..cluster.jobs import Job, Jobs

__all__ = ["jobs"]

jobs = typer.Typer(rich_markup_mode=None)

_SPEC_FILE = "spec.yaml"
_HOME_RUNS = "~/runs"

Command = Annotated[
    Literal["search", "compare"], typer.Argument(metavar="COMMAND", help="search or compare.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's dashboard, http://HOST:8265; by default what RAY_API_SERVER_ADDRESS "
        "says, or this machine's.",
    ),
]
RunOrJob = Annotated[
    str, typer.Argument(metavar="RUN_OR_JOB", help="A run's name or folder, or a job's name.")
]
Include = Annotated[
    list[Path] | None,
    typer.Option(
        "--include", metavar="PATH", help="Another file or folder the job needs; repeatable."
    ),
]
RunOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="The run folder on the cluster, below cluster.storage, or ~/runs on its head node.",
    ),
]


@jobs.command()
@plainly
def submit(
    command: Command,
    spec: SpecPath,
    address: Address = None,
    overrides: Overrides = None,
    output: RunOutput = None,
    include: Include = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show its log until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a search or comparison on a cluster.

    The job takes along this package, the spec, and the files that the spec names by relative paths;
    absolute paths are the cluster's own. Submitting a run that is under way attaches to it, and one
    that ended early resumes.

    Example: prunetune submit search resnet20_cifar10.yaml --address http://head:8265
    """
    from ..cluster.jobs import JobRequest, Jobs
    from ..search.spec.portable import portable_spec

    portable = portable_spec(spec, _with_output(overrides, output), include or (), command)
    folder = portable.folder(_HOME_RUNS)
    cluster = Jobs(address)
    words = ["python", "-m", "prunetune", "job", command, _SPEC_FILE, "--output"]
    words.append(portable.output if portable.spec.cluster.storage else folder)
    request = JobRequest(
        run=portable.run,
        folder=folder,
        command=shlex.join(words),
        paths=portable.paths,
        texts={_SPEC_FILE: portable.to_yaml()},
    )
    job, attached = cluster.submit(request)
    if as_json:
        facts = {**job.to_dict(), "address": cluster.address, "attached": attached}
        say(json.dumps(facts, indent=2))
    else:
        say(f"{_submitted(job, attached)}; its run folder on the cluster is {folder}")
        say(f"prunetune logs {job.name} --follow --address {cluster.address}")
    if follow:
        _follow(cluster, job)


def _with_output(overrides: list[str] | None, output: str | None) -> list[str]:
    chosen = [] if output is None else [f"output={json.dumps(output)}"]
    return [*(overrides or ()), *chosen]


def _submitted(job: Job, attached: bool) -> str:
    if not attached:
        return f"Submitted {job.name}"
    if job.has_ended:
        return f"{job.name} has finished already"
    return f"{job.name} is on this cluster already ({job.status})"


@jobs.command()
@plainly
def status(run_or_job: RunOrJob, address: Address = None, as_json: AsJson = False) -> None:
    """Say how a run gets on.

    It looks at a run folder on this machine, or at a submitted run.

    Example: prunetune status resnet20_cifar10-1f2e3d4c --address http://head:8265
    """
    from ..search.run.location import holds_run

    if address is None and holds_run(Path(run_or_job)):
        _print(_folder_facts(Path(run_or_job)), as_json)
        return
    from ..cluster.jobs import Jobs

    cluster = Jobs(address)
    job = cluster.find(run_or_job)
    lines = [line for line in cluster.logs(job).splitlines() if line.strip()]
    _print({**job.to_dict(), "latest": lines[-1] if lines else ""}, as_json)


def _folder_facts(folder: Path) -> dict[str, Any]:
    from ..search.run.folder import RunFolder
    from ..search.run.record import read_record
    from ..search.run.summary import read_summary

    run = RunFolder.open(folder)
    summary = read_summary(run)
    if summary is None:
        return {"folder": str(run.path), "status": "running"}
    return {
        "folder": str(run.path),
        "status": summary.status,
        # The summary counts them only when all searches have ended.
        "evaluations": read_record(run.evaluations).num_rows,
        "networks": sum(best.artifact is not None for best in summary.best),
        "wall_seconds": round(summary.wall_seconds, 1),
        "error": summary.error,
    }


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if key in ("started", "ended") and value is not None:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        if value not in (None, ""):
            say(f"{key.replace('_', ' ')}: {value}")


@jobs.command()
@plainly
def logs(
    run_or_job: RunOrJob,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
) -> None:
    """Show what a submitted run prints.

    Example: prunetune logs resnet20_cifar10-1f2e3d4c --follow --address http://head:8265
    """
    from ..cluster.jobs import Jobs

    cluster = Jobs(address)
    job = cluster.find(run_or_job)
    if follow:
        _follow(cluster, job)
    else:
        typer.echo(cluster.logs(job), nl=False)


def _follow(cluster: Jobs, job: Job) -> None:
    """Show a job's log until it ends; what became of it is the exit code."""

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        ended = cluster.follow(job, show)
    except KeyboardInterrupt:
        say(f"{job.name} goes on; `prunetune stop {job.name}` would stop it.", err=True)
        raise
    say(f"{ended.name}: {ended.status}", err=True)
    if ended.status != "SUCCEEDED":
        raise typer.Exit(1)


@jobs.command()
@plainly
def stop(run_or_job: RunOrJob, address: Address = None, as_json: AsJson = False) -> None:
    """Stop a submitted run; it can be submitted again.

    No evaluation is lost, and submitting the run again resumes it.

    Example: prunetune stop resnet20_cifar10-1f2e3d4c --address http://head:8265
    """
    from ..cluster.jobs import Jobs

    cluster = Jobs(address)
    job = cluster.stop(cluster.find(run_or_job))
    if as_json:
        say(json.dumps(job.to_dict(), indent=2))
    else:
        say(f"{job.name}: {job.status}")


@jobs.command()
@plainly
def kuberay(
    spec: SpecPath,
    image: Annotated[str, typer.Option(help="A container image with prunetune and Ray.")],
    overrides: Overrides = None,
    output: RunOutput = None,
    include: Include = None,
    workers: Annotated[int, typer.Option(min=1, help="Pods that evaluate.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of a pod.")] = 4,
    memory: Annotated[str, typer.Option(help="Memory of a pod.")] = "8Gi",
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a worker.")] = 0,
    claim: Annotated[
        str | None,
        typer.Option(metavar="NAME:/PATH", help="A PersistentVolumeClaim and where to mount it."),
    ] = None,
) -> None:
    """Write a RayJob manifest for Kubernetes.

    A spec with a grid under `compare` becomes a comparison, any other a search. Lost clusters are
    replaced, and the run resumes.

    Example: prunetune kuberay spec.yaml --image registry/prunetune --set cluster.storage=s3://b/p
    """
    from ..cluster.kuberay import JOB_FOLDER, RayJobPods, rayjob_manifest
    from ..search.spec.portable import portable_spec

    portable = portable_spec(spec, _with_output(overrides, output), include or ())
    words = ["prunetune", portable.command, f"{JOB_FOLDER}/{_SPEC_FILE}"]
    words += ["--output", portable.output, "--resume"]
    pods = RayJobPods(image, workers, cpus, memory, gpus, claim)
    manifest = rayjob_manifest(
        portable.run,
        shlex.join(words),
        portable.spec.cluster.storage,
        pods,
        portable.paths,
        {_SPEC_FILE: portable.to_yaml()},
    )
    typer.echo(manifest, nl=False)


@jobs.command(hidden=True)
@plainly
def job(
    command: Command,
    spec: SpecPath,
    output: Annotated[Path, typer.Option("--output", metavar="DIR")],
) -> None:
    """Run what was submitted, in the working directory of its job.

    Paths stay relative: every node has its own copy of that directory.

    Example: prunetune job search spec.yaml --output runs/first
    """
    from ..search.spec.names import check_names
    from ..search.spec.reading import read_spec_file

    # Ray blocks SIGINT in what it starts, and a run ends in an orderly way by it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    read = read_spec_file(spec)
    check_names(read)
    run_spec(read, output, False, comparison=command == "compare", resume=True)

"""The command line. Everything slow to import is imported by the command that needs it."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from . import __version__
from .errors import PruneTuneError

if TYPE_CHECKING:
    from .search.spec import SearchSpec

__all__ = ["app", "main"]

_USER_MISTAKE = 2
_INTERRUPTED = 130

app = typer.Typer(
    name="prunetune",
    help="Find the layer-by-layer widths of a trained network under hard compute budgets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_P = ParamSpec("_P")

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the spec; repeatable."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="The run folder; must not exist yet."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def _plainly(command: Callable[_P, None]) -> Callable[_P, None]:
    """Turn what the user did wrong, or Ctrl-C, into one sentence and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except PruneTuneError as error:
            # What a worker raised comes wrapped in Ray's own error, whose text is a traceback.
            _fail(str(getattr(error, "cause", None) or error))
        except BrokenPipeError:
            # The reader of our output has gone, as with `| head`; that is no mistake.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if error.filename is None:
                raise
            _fail(f"{error.filename}: {error.strerror}; check the path and its permissions.")
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(_INTERRUPTED) from None

    return wrapped


def _fail(message: str) -> NoReturn:
    sentence = " ".join(message.split())
    # What a user's own object raised rarely ends like a sentence.
    end = "" if sentence.endswith((".", "?", "!")) else "."
    typer.echo(f"Error: {sentence}{end}", err=True)
    raise typer.Exit(_USER_MISTAKE)


def _interrupted(run: Path | None) -> NoReturn:
    kept = (
        "before the run began; nothing was written."
        if run is None
        else f"no evaluation is lost. Continue with `prunetune resume {run}`."
    )
    typer.echo(f"Interrupted: {kept}", err=True)
    raise typer.Exit(_INTERRUPTED)


def _begun_since(began: float, output: Path | None) -> Path | None:
    """The run folder that this process made, if it got so far."""
    chosen = [output] if output is not None else list(Path("runs").glob("*"))
    made = [run for run in chosen if (run / "summary.json").exists()]
    newest = max(made, key=lambda run: run.stat().st_mtime, default=None)
    return newest if newest is not None and newest.stat().st_mtime >= began - 1 else None


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"prunetune {__version__}")
        raise typer.Exit


@app.command()
@_plainly
def quickstart(overrides: Overrides = None, output: Output = None, as_json: AsJson = False) -> None:
    """The whole story on embedded data, in a few minutes.

    Trains a small network on scikit-learn's digits, searches for smaller ones under two budgets
    with two rewards, fine-tunes the best, and compares. Nothing is downloaded.

    Example: prunetune quickstart --output runs/first
    """
    import torch

    from .search.quickstart import quickstart_spec

    # Several threads only wait for each other on a network this small.
    torch.set_num_threads(1)
    _run(quickstart_spec(overrides or ()), output, as_json, comparison=True)


@app.command()
@_plainly
def search(
    spec: SpecPath, overrides: Overrides = None, output: Output = None, as_json: AsJson = False
) -> None:
    """Find a smaller network within the budgets.

    One search: one agent, one reward, one set of budgets, one seed.

    Example: prunetune search examples/resnet20_cifar10.yaml --set budgets.flops=0.4
    """
    from .search.spec import load_spec

    _run(load_spec(spec, overrides or ()), output, as_json, comparison=False)


@app.command()
@_plainly
def compare(
    spec: SpecPath, overrides: Overrides = None, output: Output = None, as_json: AsJson = False
) -> None:
    """Compare rewards, budgets and agents over seeds.

    Runs a grid of searches (rewards x budgets x agents x seeds) under Ray Tune.

    Example: prunetune compare examples/entropy_vs_accuracy.yaml --set compare.seeds=3
    """
    from .search.spec import load_spec

    _run(load_spec(spec, overrides or ()), output, as_json, comparison=True)


def _run(spec: SearchSpec, output: Path | None, as_json: bool, comparison: bool) -> None:
    from ._console import shown_progress
    from .search.comparison import run_comparison, run_search

    if output is not None:
        spec = spec.model_copy(update={"output": output})
    began = time.time()
    try:
        with shown_progress() as progress:
            summary = (run_comparison if comparison else run_search)(spec, progress)
    except KeyboardInterrupt:
        _interrupted(_begun_since(began, spec.output))
    _conclude(summary.folder, as_json)


@app.command()
@_plainly
def resume(
    run: RunPath,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates each search may ask for in all; a longer search."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Continue a search or comparison after anything.

    Ctrl-C, a crash or a lost machine: no evaluation is lost, and none is repeated.

    Example: prunetune resume runs/resnet20_cifar10-1
    """
    from ._console import shown_progress
    from .search.comparison import resume_run

    try:
        with shown_progress() as progress:
            summary = resume_run(run, progress, evaluations=evaluations)
    except KeyboardInterrupt:
        _interrupted(run)
    _conclude(summary.folder, as_json)


@app.command()
@_plainly
def report(run: RunPath, as_json: AsJson = False) -> None:
    """Write tables, pictures and an offline page.

    They go to RUN/report, from what the run's folder holds, finished or not.

    Example: prunetune report runs/quickstart-1
    """
    _conclude(run, as_json)


def _conclude(run: Path, as_json: bool) -> None:
    """Write the report and print the results."""
    from .search.report import print_results, write_report

    page, results = write_report(run)
    if as_json:
        typer.echo(
            json.dumps({**results.summary.model_dump(mode="json"), "report": str(page)}, indent=2)
        )
    else:
        print_results(results)
        typer.echo(f"Report: {page}")


@app.command()
@_plainly
def verify(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The artifact's folder.")],
    as_json: AsJson = False,
) -> None:
    """Rebuild and recount the network of an artifact.

    Example: prunetune verify runs/quickstart-1/best/TRIAL
    """
    from .models.artifact import verify_artifact

    facts = verify_artifact(artifact)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        typer.echo(f"{name}: {value}")
    typer.echo("Verified. FLOPs = 2 x multiply-accumulates at batch 1.")


@app.command("list")
@_plainly
def list_names(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="models, data, rewards, criteria or agents.")
    ],
    as_json: AsJson = False,
) -> None:
    """List the names that a spec may use.

    Example: prunetune list rewards
    """
    from ._plugins import pick
    from .search.names import KINDS

    names = pick("kind", kind, KINDS)()
    if as_json:
        typer.echo(json.dumps(names, indent=2))
        return
    width = max(map(len, names))
    for name, meaning in names.items():
        typer.echo(f"{name:{width}}  {meaning}".rstrip())


def main() -> Any:
    """The entry point of the ``prunetune`` command."""
    return app(prog_name="prunetune")

"""The command line. Everything slow to import is imported by the command that needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .. import __version__
from .commands import (
    AsJson,
    MethodName,
    Output,
    Overrides,
    Resume,
    RunPath,
    SpecPath,
    conclude,
    in_a_process_of_its_own,
    plainly,
    run_spec,
    say,
    show,
    with_method_named,
)
from .jobs import jobs

__all__ = ["app", "main"]

app = typer.Typer(
    name="prunetune",
    help="Find the layer-by-layer widths of a trained network under hard compute budgets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        say(f"prunetune {__version__}")
        raise typer.Exit


@app.command()
@plainly
def quickstart(overrides: Overrides = None, output: Output = None, as_json: AsJson = False) -> None:
    """Show the whole story on embedded data, in a few minutes.

    Trains a small network on scikit-learn's digits, searches for smaller ones under two budgets
    with two rewards, fine-tunes the best, and compares. Nothing is downloaded.

    Example: prunetune quickstart --output runs/first
    """
    import torch

    from ..search.quickstart import quickstart_spec

    # Several threads only wait for each other on a network this small.
    torch.set_num_threads(1)
    run_spec(quickstart_spec(overrides or ()), output, as_json, comparison=True)


@app.command()
@plainly
def search(
    spec: SpecPath,
    method: MethodName = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Find a smaller network within the budgets.

    It runs one search: one agent, one reward, one set of budgets, one seed.

    Example: prunetune search examples/resnet20_cifar10.yaml --set budgets.flops=0.4
    """
    from ..search.spec.reading import load_spec

    run_spec(
        load_spec(spec, with_method_named(method, overrides)),
        output,
        as_json,
        comparison=False,
        resume=resume,
    )


@app.command()
@plainly
def compare(
    spec: SpecPath,
    method: MethodName = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Compare rewards, budgets and agents over seeds.

    Runs a grid of searches (rewards x budgets x agents x seeds) under Ray Tune.

    Example: prunetune compare examples/entropy_vs_accuracy.yaml --set compare.seeds=3
    """
    from ..search.spec.reading import load_spec

    run_spec(
        load_spec(spec, with_method_named(method, overrides)),
        output,
        as_json,
        comparison=True,
        resume=resume,
    )


TrustRun = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run the code of a run that was moved, copied or made by somebody else."
    ),
]


@app.command()
@plainly
def resume(
    run: RunPath,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates each search may ask for in all; a longer search."),
    ] = None,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Continue a search or comparison after anything that ended it early.

    After Ctrl-C, a crash or a lost machine no evaluation is lost, and none is repeated. It runs the
    code that the run names; where you did not begin the run here, it asks for --trust first.

    Example: prunetune resume runs/resnet20_cifar10-1
    """
    from ..search.api.stored_runs import resumed_run

    show(lambda progress: resumed_run(run, progress, evaluations=evaluations, trust=trust), as_json)


@app.command()
@plainly
def finetune(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a value of the spec's finetune; repeatable."
        ),
    ] = None,
    trust: TrustRun = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune what a run found once more, in another way.

    Nothing is searched again. The run's networks, its report and its spec are replaced; a run
    that was interrupted goes on first. It runs code as `resume` does.

    Example: prunetune finetune runs/resnet20_cifar10-1 --set epochs=30
    """
    from ..search.api.stored_runs import finetuned_run

    show(lambda progress: finetuned_run(run, overrides or (), progress, trust=trust), as_json)


@app.command()
@plainly
def report(run: RunPath, as_json: AsJson = False) -> None:
    """Write tables, pictures and an offline page.

    They go to RUN/report, from what the run's folder holds, finished or not.

    Example: prunetune report runs/quickstart-1
    """
    from ..search.run.location import opened_run

    with opened_run(run) as folder:
        conclude(folder, as_json, whole=False)


ArtifactPath = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The artifact's folder.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run the file or module of the user's own that the artifact names."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE.py:NAME",
        help="What builds the dense network, where its file has moved; it is run.",
    ),
]


@app.command()
@plainly
def verify(
    artifact: ArtifactPath,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Measure the test accuracy on this data, such as digits or parquet:DIR.",
        ),
    ] = None,
    model: Model = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild the network of an artifact and recount what is claimed.

    Digests, outputs, FLOPs, parameters and budgets are compared; the accuracy, too, where the data
    is digits or is given. Nothing is run that the artifact names, unless it is trusted.

    Example: prunetune verify runs/quickstart-1/best/TRIAL
    """
    from ..models.artifact import verify_artifact

    facts = verify_artifact(artifact, model=model, trust=trust, data=data)
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        missing = name == "test_accuracy" and value is None
        say(f"{name}: {'not measured; give --data' if missing else value}")
    say("Verified. FLOPs = 2 x multiply-accumulates at batch 1.")


@app.command()
@plainly
def export(
    artifact: ArtifactPath,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="onnx or torch-export.")
    ] = "torch-export",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Must not exist yet.")
    ] = None,
    model: Model = None,
    trust: Trust = False,
) -> None:
    """Write the network of an artifact as one file that runs without prunetune.

    Its outputs are compared with the network's before it gets its name.

    Example: prunetune export runs/quickstart-1/best/TRIAL --format onnx
    """
    from ..models.artifact.exporting import export_artifact

    written = export_artifact(artifact, cast("Any", form), output, model=model, trust=trust)
    say(f"{written}: takes normalised images [N, C, H, W], gives logits [N, classes].")


@app.command("list")
@plainly
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="models, data, costs, measures, rewards, criteria, agents or methods.",
        ),
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Of methods: their part of a spec, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the names that a spec may use.

    Example: prunetune list methods --verbose
    """
    from .._nearest import pick
    from ..search.spec.methods import describe_methods
    from ..search.spec.names import REGISTRIES, registry

    pick("kind of name", what, {**REGISTRIES, "methods": ""})
    names = describe_methods(verbose) if what == "methods" else registry(what).describe()
    if as_json:
        say(json.dumps(names, indent=2))
        return
    width = max(map(len, names))
    for name, meaning in names.items():
        lines = meaning.splitlines() or [""]
        for label, line in zip([name, *[""] * len(lines)], lines, strict=False):
            say(f"{label:{width}}  {line}".rstrip())


# Commands for clusters are listed beside the others.
app.add_typer(jobs)


def main() -> None:
    """The entry point of the ``prunetune`` command."""
    in_a_process_of_its_own(lambda: app(prog_name="prunetune"))

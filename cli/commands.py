"""What commands share: their options, running a spec, and mistakes as one sentence."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, ParamSpec

import typer

from .._text import visible
from ..errors import PruneTuneError, SpecError
from ..search.engine.signals import ended_by_signals

if TYPE_CHECKING:
    from ..models.progress import Progress
    from ..search.api.results import Run
    from ..search.spec.reading import SearchSpec

__all__ = [
    "AsJson",
    "MethodName",
    "Output",
    "Overrides",
    "Resume",
    "RunPath",
    "SpecPath",
    "conclude",
    "in_a_process_of_its_own",
    "interrupted",
    "plainly",
    "run_spec",
    "say",
    "show",
    "with_method_named",
]

_INCOMPLETE = 1
_USER_MISTAKE = 2
_EXIT_SECONDS = 10.0
# After Ctrl-C, SIGTERM or a closed terminal.
_INTERRUPTED = 130

_P = ParamSpec("_P")

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its URI.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the spec; repeatable."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="The run folder; must not exist yet."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in the output folder if there is one.")
]
MethodName = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME", help="A published method; see `list methods`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def say(text: str, err: bool = False) -> None:
    """Print a line, in which what others wrote is text and no command for the terminal."""
    typer.echo(visible(text), err=err)


def plainly(command: Callable[_P, None]) -> Callable[_P, None]:
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
            _end("Interrupted.")

    return wrapped


def _fail(message: str) -> NoReturn:
    sentence = " ".join(message.split())
    # What a user's own object raised rarely ends like a sentence.
    end = "" if sentence.endswith((".", "?", "!")) else "."
    say(f"Error: {sentence}{end}", err=True)
    raise typer.Exit(_USER_MISTAKE)


def interrupted(run: str | None) -> NoReturn:
    """Say what Ctrl-C left behind, and exit."""
    kept = (
        "before the run began; nothing was written."
        if run is None
        else f"no evaluation is lost. Continue with `prunetune resume {run}`."
    )
    _end(f"Interrupted: {kept}")


def _end(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # the terminal may be gone
        say(message, err=True)
    raise typer.Exit(_INTERRUPTED)


def in_a_process_of_its_own(command: Callable[[], None]) -> None:
    """Run the command line so that signals end it within seconds, whatever it is doing.

    Args:
        command: Ends with `SystemExit`.
    """
    try:
        with ended_by_signals():
            command()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            _leave_soon()
        raise


def _leave_soon() -> None:
    """Let nothing keep this process: what Ray still waits for is its own, ours is on disk."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    watchdog = threading.Timer(_EXIT_SECONDS, os._exit, (_INTERRUPTED,))
    watchdog.daemon = True
    watchdog.start()


def with_method_named(method: str | None, overrides: list[str] | None) -> list[str]:
    """What is to be overridden in a spec, the method that it takes among it."""
    return [*([] if method is None else [f"method={method}"]), *(overrides or ())]


def run_spec(
    spec: SearchSpec,
    output: Path | None,
    as_json: bool,
    comparison: bool,
    resume: bool = False,
) -> None:
    """Run a search or a comparison and print the results.

    Args:
        spec: The spec.
        output: Replaces the spec's.
        as_json: Print JSON.
        comparison: Run the spec's whole grid.
        resume: Continue the run that is in the output folder, if there is one.
    """
    from ..search.api.stored_runs import new_run

    if output is not None:
        spec = spec.model_copy(update={"output": output})
    if resume and spec.output is None:
        raise SpecError("To continue a run, --resume needs its folder: add --output DIR.")
    show(lambda progress: new_run(spec, progress, comparison=comparison, resume=resume), as_json)


def show(run: Callable[[Progress], AbstractContextManager[Run]], as_json: bool) -> None:
    """Show how a run gets on, and its results, or what Ctrl-C left of it.

    Args:
        run: Begins or continues a run, given what receives progress.
        as_json: Print the results as JSON.
    """
    from ..search.engine.entry import RunInterrupted
    from .console import shown_progress

    with ExitStack() as stack:
        try:
            with shown_progress() as progress:
                ended = stack.enter_context(run(progress))
        except RunInterrupted as stopped:
            interrupted(stopped.address)
        except KeyboardInterrupt:
            interrupted(None)
        conclude(ended.folder, as_json)


def conclude(run: Path, as_json: bool, whole: bool = True) -> None:
    """Write the report and print the results.

    Args:
        run: The run folder.
        as_json: Print JSON.
        whole: Whether the run was to be finished: an incomplete one then ends with exit code 1.
    """
    from ..search.report import print_results, write_report

    page, results = write_report(run)
    if as_json:
        say(json.dumps({**results.summary.model_dump(mode="json"), "report": str(page)}, indent=2))
    else:
        print_results(results)
        say(f"Report: {page}")
    if whole and results.summary.status == "incomplete":
        say(
            f"Incomplete: {results.summary.error} Remove the cause, then try again with "
            f"`prunetune resume {run}`.",
            err=True,
        )
        raise typer.Exit(_INCOMPLETE)

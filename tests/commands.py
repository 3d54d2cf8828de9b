"""Running the command line inside a test."""

from __future__ import annotations

from prunetune.cli.app import app
from typer.testing import CliRunner, Result

__all__ = ["assert_one_sentence", "invoke"]


def invoke(*arguments: object) -> Result:
    """What `prunetune ARGUMENTS` prints and exits with."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_one_sentence(result: Result, *parts: str) -> None:
    """That a command ended with exit code 2 and one sentence that holds all of ``parts``."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ") and error.endswith((".", "?")), error
    for part in parts:
        assert part in error, error

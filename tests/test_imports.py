"""What `import prunetune` brings along: nothing but the standard library, whatever is offered."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Prints the top names of all modules that a statement imports, beside those of the interpreter.
_SCRIPT = """
import sys
before = set(sys.modules)
{statement}
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(tops - set(sys.stdlib_module_names)))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import prunetune",
        "import prunetune; dir(prunetune), prunetune.__version__",
        "from prunetune import PruneTuneError",
        "import prunetune.errors",
    ],
)
def test_importing_the_package_imports_nothing_heavy(statement: str) -> None:
    script = _SCRIPT.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["prunetune"], done.stderr or done.stdout


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("prunetune.rewards", ("torch", "ray")),
        ("prunetune.cluster", ("torch", "ray")),
        ("prunetune.search", ("torch", "ray")),
        ("prunetune.search.spec.reading", ("ray", "matplotlib", "optuna")),
        ("prunetune.models", ("ray", "matplotlib")),
        ("prunetune.envs.problem", ("ray", "matplotlib")),
    ],
)
def test_rooms_leave_out_what_they_do_not_need(module: str, without: tuple[str, ...]) -> None:
    script = _SCRIPT.format(statement=f"import {module}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & set(without), done.stdout

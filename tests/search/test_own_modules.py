"""A search with modules of the user's own, called as an installed command is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# The console script has the folder of the script in Python's path, not the one it is called in.
_COMMAND = (
    "import os, sys; sys.path = [p for p in sys.path if p not in ('', os.getcwd())]; "
    "from prunetune.cli.app import main; main()"
)
_FILES = {
    "own_pkg/__init__.py": "",
    "own_pkg/mod.py": (
        "from torch import nn\n"
        "from . import blocks\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.a, self.b = blocks.block(1, 8), blocks.block(8, 8)\n"
        "        self.head = nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.b(self.a(x)).mean((2, 3)))\n"
    ),
    "own_pkg/blocks.py": (
        "from torch import nn\n"
        "def block(i, o):\n"
        "    return nn.Sequential(nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU())\n"
    ),
    "elsewhere/own_reward.py": "from own_base import Base\nclass Mine(Base):\n    name = 'mine'\n",
    "elsewhere/own_base.py": (
        "from prunetune.rewards import Reward\n"
        "class Base(Reward):\n"
        "    name = 'base'\n"
        "    measures = ('accuracy',)\n"
        "    def __call__(self, evaluation, dense):\n"
        "        return evaluation.measures['accuracy']\n"
    ),
}
_SPEC = {
    "task": {
        "model": "own_pkg.mod:Net",
        "training": {"epochs": 1},
        "validation": 100,
        "calibration": 64,
    },
    "budgets": {"flops": 0.6},
    "reward": "elsewhere/own_reward.py:Mine",
    "agent": "random",
    "evaluations": 3,
    "finalists": 1,
    "finetune": {"epochs": 0},
}


def _command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", _COMMAND, *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=300)


def test_modules_of_ones_own_are_found_everywhere_and_resume_names_the_one_that_changed(
    tmp_path: Path,
) -> None:
    for name, text in _FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(_SPEC))
    done = _command(tmp_path, "search", "own.yaml", "--output", "run")
    assert done.returncode == 0, done.stderr
    for name in ("own_pkg/blocks.py", "elsewhere/own_base.py"):
        (tmp_path / name).write_text(_FILES[name] + "# edited\n")
        refused = _command(tmp_path, "resume", "run", "--evaluations", "4")
        (tmp_path / name).write_text(_FILES[name])
        assert refused.returncode == 2, refused.stderr
        label = name.removeprefix("elsewhere/")
        assert f"because the file {label} has changed, so" in refused.stderr

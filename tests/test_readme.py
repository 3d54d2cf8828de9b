"""Everything that the README says to type, typed; everything it shows of files, compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from prunetune._references import resolve
from prunetune.search.spec.reading import load_spec
from prunetune.testing import check_reward

from .pages import blocks, check_words

_ROOT = Path(__file__).resolve().parents[1]
_README = _ROOT / "README.md"

# The same commands, with fewer candidates and less training.
_SMALLER = ["--set", "evaluations=16", "--set", "finetune.epochs=0", "--set", "finalists=1"]
_SMALLER += ["--set", "task.validation=400"]


def _blocks(language: str) -> list[str]:
    return [block.text for block in blocks(_README) if block.language == language]


def _commands() -> list[str]:
    return [line for block in blocks(_README) if block.language == "bash" for line in block.lines]


def _type(command: str, cwd: Path) -> str:
    words = shlex.split(command)
    assert words[0] == "prunetune"
    if words[1] in ("search", "compare", "quickstart"):
        words += _SMALLER
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_is_known_to_this_test() -> None:
    # Installing is test_packaging.py's part, and running pytest is being done.
    expected = ["pip install .", "prunetune quickstart", 'pip install ".[dev]"', "pytest"]
    expected += [
        "prunetune search resnet20_cifar10.yaml --output runs/resnet20",
        "prunetune report runs/resnet20",
        "prunetune verify runs/resnet20/best/accuracy_flops0.5_ppo-lagrangian_seed0",
        "prunetune resume runs/resnet20",
        "prunetune compare examples/my_reward.yaml",
    ]
    # Those that need a cluster are typed by cluster/test_job_end_to_end.py.
    assert [command for command in _commands() if "--address" not in command] == expected


def test_every_command_exists() -> None:
    for command in _commands():
        if command.startswith("prunetune "):
            check_words(shlex.split(command)[1:])


def test_it_takes_two_screens() -> None:
    lines = _README.read_text().splitlines()
    assert len(lines) <= 120
    assert sum(line.startswith("![") for line in lines) == 1


def test_files_that_are_shown_are_those_of_the_examples() -> None:
    examples = {path.read_text() for path in (_ROOT / "examples").iterdir() if path.is_file()}
    shown = _blocks("yaml")
    assert shown
    assert set(shown) <= examples


@pytest.mark.parametrize("path", sorted((_ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_examples_are_specs(path: Path) -> None:
    assert load_spec(path).budgets


def test_overrides_that_are_mentioned_work(tmp_path: Path) -> None:
    text = _README.read_text()
    overrides = re.findall(r"--set (\S+=[^`\s]+)", text)
    assert overrides
    for override in overrides:
        load_spec(_ROOT / "examples" / "my_reward.yaml", [override])


@pytest.mark.slow
@pytest.mark.ray
def test_quickstart(cache_folder: Path, tmp_path: Path) -> None:
    printed = _type("prunetune quickstart", tmp_path)
    assert "2 x multiply-accumulates" in " ".join(printed.split())
    assert (tmp_path / "runs" / "quickstart-1" / "report" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_reward_of_ones_own(cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(_ROOT / "examples")
    printed = _type("prunetune compare examples/my_reward.yaml", tmp_path)
    assert "LeanAgreement" in printed


def test_the_reward_that_is_shown_can_be_trusted() -> None:
    reward = resolve(f"{_ROOT / 'examples' / 'my_reward.py'}:LeanAgreement", "reward")
    check_reward(reward(), decreases_with=("params",))


@pytest.mark.slow
@pytest.mark.ray
def test_python(cache_folder: Path, tmp_path: Path) -> None:
    (snippet,) = [block for block in _blocks("python") if "import prunetune" in block]
    for more, fewer in (("evaluations=100", "evaluations=16"), ("finetune=5", "finetune=1")):
        assert more in snippet
        snippet = snippet.replace(more, fewer)
    snippet = snippet.replace("seeds=5", "seeds=1, finetune=0")
    script = tmp_path / "snippet.py"
    script.write_text(snippet)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "flops" in done.stdout
    assert (tmp_path / "half" / "pruning.json").exists()


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.ray
def test_first_real_network(real_data: Path, cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar10").symlink_to(real_data / "cifar10")
    weights = real_data / "weights" / "cifar10_resnet20.safetensors"
    (tmp_path / "resnet20.safetensors").symlink_to(weights)
    example = (_ROOT / "examples" / "resnet20_cifar10.yaml").read_text()
    (tmp_path / "resnet20_cifar10.yaml").write_text(example)
    for command in (command for command in _commands() if "resnet20" in command):
        _type(command, tmp_path)

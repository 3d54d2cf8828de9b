"""Everything that the README says to type, typed; everything it shows of files, compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from prunetune.search.spec.reading import load_spec

_ROOT = Path(__file__).resolve().parents[1]
_README = _ROOT / "README.md"

# The same commands, with fewer candidates and less training.
_SMALLER = ["--set", "evaluations=16", "--set", "finetune.epochs=0", "--set", "finalists=1"]
_SMALLER += ["--set", "task.validation=400"]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _README.read_text(), re.M | re.S)


def _commands() -> list[str]:
    lines = [line for block in _blocks("bash") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&")]


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


@pytest.mark.parametrize("language", ["yaml", "python"])
def test_files_that_are_shown_are_those_of_the_examples(language: str) -> None:
    examples = {path.read_text() for path in (_ROOT / "examples").iterdir()}
    shown = [block for block in _blocks(language) if not block.startswith("from ")]
    assert shown
    assert set(shown) <= examples


@pytest.mark.parametrize("path", sorted((_ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_examples_are_specs(path: Path) -> None:
    assert load_spec(path).budgets


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", _README.read_text())
    assert targets
    for target in targets:
        assert target.startswith("http") or (_ROOT / target).exists(), target


def test_overrides_that_are_mentioned_work(tmp_path: Path) -> None:
    text = _README.read_text()
    overrides = re.findall(r"--set (\S+=[^`\s]+)", text)
    assert len(overrides) >= 4
    for override in overrides:
        load_spec(_ROOT / "examples" / "my_reward.yaml", [override])


@pytest.mark.ray
def test_quickstart(cache_folder: Path, tmp_path: Path) -> None:
    printed = _type("prunetune quickstart", tmp_path)
    assert "2 x multiply-accumulates" in " ".join(printed.split())
    assert (tmp_path / "runs" / "quickstart-1" / "report" / "index.html").exists()


@pytest.mark.ray
def test_reward_of_ones_own(cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(_ROOT / "examples")
    printed = _type("prunetune compare examples/my_reward.yaml", tmp_path)
    assert "LeanAgreement" in printed
    (check,) = [block for block in _blocks("python") if "check_reward" in block]
    search_path = {**os.environ, "PYTHONPATH": str(_ROOT / "examples")}
    subprocess.run([sys.executable, "-c", check], check=True, cwd=tmp_path, env=search_path)


@pytest.mark.real
@pytest.mark.ray
def test_first_real_network(real_data: Path, cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar10").symlink_to(real_data / "cifar10")
    weights = real_data / "weights" / "cifar10_resnet20.safetensors"
    (tmp_path / "resnet20.safetensors").symlink_to(weights)
    example = (_ROOT / "examples" / "resnet20_cifar10.yaml").read_text()
    (tmp_path / "resnet20_cifar10.yaml").write_text(example)
    commands = [command for command in _commands() if "resnet20" in command]
    for command in commands:
        _type(command, tmp_path)
    (load,) = [block for block in _blocks("python") if "load_artifact" in block]
    subprocess.run([sys.executable, "-c", load], check=True, cwd=tmp_path)
